// gRPC on node:http2, with the calls of that module in the order in which @grpc/grpc-js (the client of NestJS, among
// others) makes them: src/transport.ts and src/subchannel-call.ts there. Node's http2 is nghttp2 too, but what it
// does with a stream that ends, resets or half-closes early is its own.

import http2 from 'node:http2';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import zlib from 'node:zlib';

const { NGHTTP2_CANCEL, NGHTTP2_FLAG_END_STREAM, NGHTTP2_NO_ERROR, NGHTTP2_REFUSED_STREAM } = http2.constants;

export const Status = {
  OK: 0, CANCELLED: 1, UNKNOWN: 2, INVALID_ARGUMENT: 3, DEADLINE_EXCEEDED: 4, UNIMPLEMENTED: 12, INTERNAL: 13,
  UNAVAILABLE: 14,
};

const codecs = {
  gzip: { compress: promisify(zlib.gzip), decompress: zlib.gunzipSync },
  deflate: { compress: promisify(zlib.deflate), decompress: zlib.inflateSync },
};

export class Channel {
  constructor(address, { caFile } = {}) {
    this.authority = address;
    const scheme = caFile ? 'https' : 'http';
    this.session = http2.connect(`${scheme}://${address}`, {
      settings: { ...http2.getDefaultSettings(), enablePush: false },
      ...(caFile ? { ca: readFileSync(caFile) } : {}),
    });
    this.goaway = undefined;
    this.session.on('goaway', (code, lastStreamID, data) => { this.goaway = { code, data: `${data ?? ''}` }; });
    this.session.on('error', () => {}); // told to each call
  }

  call(path, options = {}) {
    return new Call(this, path, options);
  }

  // One message out, all messages in.
  async unary(path, message, options = {}) {
    const call = this.call(path, options);
    await call.send(message, options);
    call.end();
    return call.collect();
  }

  // Ends at once what still runs.
  close() {
    this.session.destroy();
  }
}

export class Call {
  constructor(channel, path, { metadata = {}, timeoutMs, encoding = 'identity' }) {
    this.encoding = encoding;
    this.metadata = {};
    this.finalStatus = null;
    this.serverEndedCall = false;
    this.readsClosed = false;
    this.buffer = Buffer.alloc(0);
    this.queue = [];
    this.wake = () => {};
    this.status = new Promise((resolve) => { this.resolveStatus = resolve; });

    const headers = {
      ...metadata,
      'grpc-accept-encoding': 'identity,deflate,gzip',
      'user-agent': 'interop-node',
      'content-type': 'application/grpc',
      te: 'trailers',
      ':authority': channel.authority,
      ':method': 'POST',
      ':path': path,
    };
    if (encoding !== 'identity') headers['grpc-encoding'] = encoding;
    if (timeoutMs !== undefined) {
      headers['grpc-timeout'] = `${timeoutMs}m`;
      this.timer = setTimeout(() => this.cancel(Status.DEADLINE_EXCEEDED, 'Deadline exceeded'), timeoutMs);
    }
    try {
      this.stream = channel.session.request(headers);
    } catch (error) {
      this.endCall({ code: Status.UNAVAILABLE, message: error.message, trailers: {} });
      return;
    }
    this.stream.on('response', (received, flags) => {
      this.httpStatus = received[':status'];
      if (flags & NGHTTP2_FLAG_END_STREAM) {
        this.handleTrailers(received); // Trailers-Only
      } else {
        this.metadata = received;
        this.wake();
      }
    });
    this.stream.on('trailers', (received) => this.handleTrailers(received));
    this.stream.on('data', (data) => this.handleData(data));
    this.stream.on('end', () => {
      this.readsClosed = true;
      this.maybeOutputStatus();
    });
    this.stream.on('close', () => {
      this.serverEndedCall = true;
      // The trailers' event comes before, but its status may not have been handled yet.
      process.nextTick(() => this.handleClose());
    });
    this.stream.on('error', () => {}); // 'close' follows, and has the code
  }

  handleTrailers(received) {
    this.serverEndedCall = true;
    const code = received['grpc-status'] === undefined ? Status.UNKNOWN : Number(received['grpc-status']);
    const message = decodeURIComponent(received['grpc-message'] ?? '');
    this.endCall({ code, message, trailers: received });
  }

  handleData(data) {
    this.buffer = Buffer.concat([this.buffer, data]);
    while (this.buffer.length >= 5) {
      const length = this.buffer.readUInt32BE(1);
      if (this.buffer.length < 5 + length) break;
      const compressed = this.buffer[0] === 1;
      const bytes = this.buffer.subarray(5, 5 + length);
      this.buffer = this.buffer.subarray(5 + length);
      this.stream.pause(); // until the application asks for more
      this.queue.push({
        compressed,
        bytes: compressed ? codecs[this.metadata['grpc-encoding']].decompress(bytes) : bytes,
      });
    }
    this.wake();
  }

  handleClose() {
    if (this.finalStatus?.code === Status.OK) return;
    if (this.finalStatus !== null) return;
    const { rstCode } = this.stream;
    const text = `Received RST_STREAM with code ${rstCode}`;
    const code = { [NGHTTP2_CANCEL]: Status.CANCELLED, [NGHTTP2_REFUSED_STREAM]: Status.UNAVAILABLE }[rstCode];
    const lost = rstCode === NGHTTP2_NO_ERROR && this.httpStatus === undefined;
    this.endCall({ code: code ?? (lost ? Status.UNAVAILABLE : Status.INTERNAL), message: text, trailers: {} });
  }

  endCall(status) {
    if (this.finalStatus === null || this.finalStatus.code === Status.OK) {
      this.finalStatus = status;
      this.maybeOutputStatus();
    }
    clearTimeout(this.timer);
    this.destroyStream();
  }

  // OK comes after all messages, anything else at once.
  maybeOutputStatus() {
    if (this.finalStatus === null) return;
    if (this.finalStatus.code !== Status.OK || this.readsClosed) this.resolveStatus(this.finalStatus);
    this.wake();
  }

  destroyStream() {
    if (!this.stream || this.stream.destroyed) return;
    if (this.serverEndedCall) {
      this.stream.end(); // a reset would be redundant: half-close instead, to finish the stream
    } else {
      this.stream.close(this.finalStatus?.code === Status.OK ? NGHTTP2_NO_ERROR : NGHTTP2_CANCEL);
    }
  }

  async send(message, { compress = this.encoding !== 'identity' } = {}) {
    const bytes = compress ? await codecs[this.encoding].compress(message) : message;
    const prefix = Buffer.alloc(5);
    prefix[0] = compress ? 1 : 0;
    prefix.writeUInt32BE(bytes.length, 1);
    if (this.finalStatus === null) this.stream.write(Buffer.concat([prefix, bytes]));
  }

  end() {
    if (this.finalStatus === null) this.stream.end();
  }

  cancel(code = Status.CANCELLED, message = 'Cancelled on client') {
    this.endCall({ code, message, trailers: {} });
  }

  // The next message, or undefined once there is none.
  async next() {
    while (this.queue.length === 0) {
      const isOver = this.readsClosed || (this.finalStatus !== null && this.finalStatus.code !== Status.OK);
      if (isOver || !this.stream) return undefined;
      const woken = new Promise((resolve) => { this.wake = resolve; });
      this.stream.resume();
      await woken;
    }
    return this.queue.shift();
  }

  async collect() {
    const messages = [];
    for (let message = await this.next(); message; message = await this.next()) messages.push(message);
    return { messages, metadata: this.metadata, status: await this.status };
  }
}
