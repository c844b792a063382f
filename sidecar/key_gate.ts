// key_gate.ts — one name-changing operation at a time on one key.
//
// A rename or unlink that is stuck in the kernel takes effect when the kernel likes. If a second store
// of the key went ahead, the late one could replace or remove its block. So the operation that may
// still change the name keeps the gate, also long after its task was answered, and later ones wait
// here, outside every lane. One that can no longer change the name gives it up at once.
import type { Operation } from './operation.ts';

interface Gate {
  holder: Operation;
  waiting: Set<Operation>; // in the order they came
}

export class KeyGate {
  #gates = new Map<string, Gate>();

  /** True: go ahead. False: it waits, and leave() hands it out in its turn. */
  enter(operation: Operation): boolean {
    const gate = this.#gates.get(operation.gateKey);
    if (gate === undefined) {
      this.#gates.set(operation.gateKey, { holder: operation, waiting: new Set() });
      return true;
    }
    gate.waiting.add(operation);
    return false;
  }

  /** The holder is through; returns who holds the gate now and may go ahead. */
  leave(operation: Operation): Operation | null {
    const gate = this.#gates.get(operation.gateKey);
    if (gate === undefined || gate.holder !== operation) throw new Error(`operation ${operation.id} does not hold the gate of ${operation.gateKey}`);
    const [next] = gate.waiting;
    if (next === undefined) {
      this.#gates.delete(operation.gateKey);
      return null;
    }
    gate.waiting.delete(next);
    gate.holder = next;
    return next;
  }

  /** One that still waits gives up. */
  quit(operation: Operation): void {
    this.#gates.get(operation.gateKey)?.waiting.delete(operation);
  }

  holder(key: string): Operation | null {
    return this.#gates.get(key)?.holder ?? null;
  }

  isAwaited(key: string): boolean {
    return (this.#gates.get(key)?.waiting.size ?? 0) > 0;
  }

  size(): number {
    return this.#gates.size;
  }
}
