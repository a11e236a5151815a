// Just enough of protobuf for the messages of these clients. A message type is an object: name → [number, type],
// where the type is 'int32' (all varints), 'string', 'bytes', a message type, or an array of one of these.

function varint(value) {
  let rest = BigInt.asUintN(64, BigInt(value));
  const bytes = [];
  while (rest > 127n) {
    bytes.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return Buffer.from(bytes);
}

export function encode(type, message) {
  const parts = [];
  for (const [name, value] of Object.entries(message)) {
    const [number, declared] = type[name];
    const [fieldType, values] = Array.isArray(declared) ? [declared[0], value] : [declared, [value]];
    for (const one of values) {
      if (fieldType === 'int32') {
        parts.push(varint(number << 3), varint(one));
      } else {
        const bytes = typeof fieldType === 'object' ? encode(fieldType, one) : Buffer.from(one);
        parts.push(varint((number << 3) | 2), varint(bytes.length), bytes);
      }
    }
  }
  return Buffer.concat(parts);
}

export function decode(type, bytes) {
  const message = {};
  let position = 0;
  const readVarint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[position++];
      if (byte === undefined || shift > 63n) throw new Error('malformed varint');
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return Number(BigInt.asIntN(64, value));
    }
  };
  for (const [name, [, fieldType]] of Object.entries(type)) {
    if (Array.isArray(fieldType)) message[name] = [];
    else if (fieldType === 'int32') message[name] = 0;
    else if (fieldType === 'string') message[name] = '';
    else if (fieldType === 'bytes') message[name] = Buffer.alloc(0);
  }
  while (position < bytes.length) {
    const key = readVarint();
    let value;
    if ((key & 7) === 0) {
      value = readVarint();
    } else if ((key & 7) === 2) {
      const length = readVarint();
      if (length > bytes.length - position) throw new Error('truncated field');
      value = bytes.subarray(position, position + length);
      position += length;
    } else {
      throw new Error(`wire type ${key & 7}`);
    }
    const [name, [, declared]] = Object.entries(type).find(([, [number]]) => number === key >> 3) ?? ['', [0, '']];
    if (!name) continue;
    const fieldType = Array.isArray(declared) ? declared[0] : declared;
    if (fieldType === 'string') value = value.toString();
    if (typeof fieldType === 'object') value = decode(fieldType, value);
    if (Array.isArray(declared)) message[name].push(value);
    else message[name] = value;
  }
  return message;
}
