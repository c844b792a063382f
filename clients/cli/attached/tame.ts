// tame.ts — what a sidecar says, before anybody uses it. Root looks at the sockets of all users (--all-users), and whoever made a socket may
// say what he likes through it: nothing of it may be obeyed by a terminal, and nothing that is of another shape may trip a tool.
import { harmless } from '../text/colour.ts';

/** Every string in it becomes one line that no terminal obeys; what turns the direction of writing is as bad as a control character. */
export function tamed(value: unknown): unknown {
  if (typeof value === 'string') return harmless(value.replace(/[\t\n\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g, '?'));
  if (Array.isArray(value)) return value.map(tamed);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, inside]) => [tamed(name), tamed(inside)]));
}

/** What a value must be: the words below, all of an array, the fields of an object, or what a function says. */
export type Shape = 'number' | 'text' | readonly [Shape] | { readonly [field: string]: Shape } | ((value: unknown) => boolean);

/** Further fields are nobody's business. */
export function fits(value: unknown, shape: Shape): boolean {
  if (shape === 'number') return typeof value === 'number' && Number.isFinite(value) && value >= 0;
  if (shape === 'text') return typeof value === 'string';
  if (typeof shape === 'function') return shape(value);
  if (Array.isArray(shape)) return Array.isArray(value) && value.every((one) => fits(one, shape[0]));
  if (typeof value !== 'object' || value === null) return false;
  return Object.entries(shape).every(([field, inside]) => fits((value as Record<string, unknown>)[field], inside));
}

export const maybe = (shape: Shape) => (value: unknown): boolean => value === undefined || fits(value, shape);
export const orNull = (shape: Shape) => (value: unknown): boolean => value === null || fits(value, shape);
export const oneOf = (...words: readonly string[]) => (value: unknown): boolean => words.includes(value as string);
export const eachOf = (shape: Shape) => (value: unknown): boolean => typeof value === 'object' && value !== null && !Array.isArray(value) && Object.values(value).every((one) => fits(one, shape));
