// The safetensors format: the length of a JSON header, the header, the numbers.

const ARRAYS = { F32: Float32Array, I64: BigInt64Array };
const NAMES = { float32: "F32", int64: "I64" };

/** Reads a file into a map from name to {dtype, shape, data}. */
export function parse(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const tensors = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [first, last] = entry.data_offsets;
    const bytes = buffer.slice(8 + length + first, 8 + length + last);
    tensors[name] = { dtype: entry.dtype, shape: entry.shape, data: new ARRAYS[entry.dtype](bytes) };
  }
  return tensors;
}

/** Writes a map from name to {type, dims, data}, as onnxruntime has them, into a file. */
export function build(tensors) {
  const header = {};
  let offset = 0;
  for (const [name, tensor] of Object.entries(tensors)) {
    const end = offset + tensor.data.byteLength;
    header[name] = { dtype: NAMES[tensor.type], shape: [...tensor.dims], data_offsets: [offset, end] };
    offset = end;
  }
  let text = JSON.stringify(header);
  text = text.padEnd(Math.ceil(text.length / 8) * 8, " ");
  const bytes = new TextEncoder().encode(text);
  const size = new DataView(new ArrayBuffer(8));
  size.setBigUint64(0, BigInt(bytes.length), true);
  const parts = Object.values(tensors).map((t) => new Uint8Array(t.data.buffer, t.data.byteOffset, t.data.byteLength));
  return new Blob([size.buffer, bytes, ...parts], { type: "application/octet-stream" });
}
