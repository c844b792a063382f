// key_gate.ts — one name-changing operation at a time on one key.
//
// A rename or unlink that is stuck in the kernel takes effect when the kernel likes. If a second store
// of the key went ahead, the late one could replace or remove its block. So the operation that may
// still change the name keeps the gate, also long after its task was answered, and later ones wait
// here, outside every lane. One that can no longer change the name gives it up at once.
import type { Operation } from './operation.ts';

interface Gate {
  holder: Operation;
  waiting: Operation[];
}

export class KeyGate {
  #gates = new Map<string, Gate>();

  /** True: go ahead. False: it waits, and leave() hands it out in its turn. */
  enter(operation: Operation): boolean {
    const gate = this.#gates.get(operation.gateKey);
    if (gate === undefined) {
      this.#gates.set(operation.gateKey, { holder: operation, waiting: [] });
      return true;
    }
    gate.waiting.push(operation);
    return false;
  }

  /** The holder is through; returns who holds the gate now and may go ahead. */
  leave(operation: Operation): Operation | null {
    const gate = this.#gates.get(operation.gateKey);
    if (gate === undefined || gate.holder !== operation) throw new Error(`operation ${operation.id} does not hold the gate of ${operation.gateKey}`);
    const next = gate.waiting.shift();
    if (next === undefined) {
      this.#gates.delete(operation.gateKey);
      return null;
    }
    gate.holder = next;
    return next;
  }

  /** One that still waits gives up. */
  quit(operation: Operation): void {
    const waiting = this.#gates.get(operation.gateKey)?.waiting;
    const at = waiting?.indexOf(operation) ?? -1;
    if (at >= 0) waiting!.splice(at, 1);
  }

  holder(key: string): Operation | null {
    return this.#gates.get(key)?.holder ?? null;
  }

  size(): number {
    return this.#gates.size;
  }
}
