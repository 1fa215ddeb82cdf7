// Views on flat arrays, as h5web wants them of the npm package of this name. That one writes its classes as text and
// compiles them in the browser, which the portal's policy forbids to everybody.

const KINDS = {
  Int8Array: "int8",
  Int16Array: "int16",
  Int32Array: "int32",
  Uint8Array: "uint8",
  Uint8ClampedArray: "uint8_clamped",
  Uint16Array: "uint16",
  Uint32Array: "uint32",
  Float32Array: "float32",
  Float64Array: "float64",
  BigInt64Array: "bigint64",
  BigUint64Array: "biguint64",
};

class View {
  constructor(data, shape, stride, offset) {
    Object.assign(this, { data, shape, stride, offset });
    this.dtype = Array.isArray(data) ? "array" : (KINDS[data?.constructor?.name] ?? "generic");
  }

  get size() {
    return this.shape.reduce((product, length) => product * length, 1);
  }

  get dimension() {
    return this.shape.length;
  }

  index(...at) {
    return this.stride.reduce((sum, step, axis) => sum + step * at[axis], this.offset);
  }

  get(...at) {
    return this.data[this.index(...at)];
  }

  set(...given) {
    const value = given.pop();
    this.data[this.index(...given)] = value;
    return value;
  }

  // Drops the dimensions for which a number is given.
  pick(...at) {
    const kept = this.shape.map((_, axis) => axis).filter((axis) => !(at[axis] >= 0 && at[axis] !== null));
    const offset = this.stride.reduce((sum, step, axis) => sum + (kept.includes(axis) ? 0 : step * at[axis]), this.offset);
    return new View(this.data, kept.map((axis) => this.shape[axis]), kept.map((axis) => this.stride[axis]), offset);
  }

  transpose(...order) {
    return new View(this.data, order.map((axis) => this.shape[axis]), order.map((axis) => this.stride[axis]), this.offset);
  }
}

export default function ndarray(data, shape = [data.length], stride = undefined, offset = 0) {
  const steps = stride ?? shape.map((_, axis) => shape.slice(axis + 1).reduce((product, length) => product * length, 1));
  return new View(data, shape, steps, offset);
}

// Writes the values of a view into another one of the same shape.
export function assign(into, from) {
  const at = from.shape.map(() => 0);
  for (let left = from.size; left > 0; left -= 1) {
    into.set(...at, from.get(...at));
    for (let axis = at.length - 1; axis >= 0; axis -= 1) {
      at[axis] += 1;
      if (at[axis] < from.shape[axis]) break;
      at[axis] = 0;
    }
  }
}
