// The cases of gRPC's interop-test-descriptions.md, each an async function of a function that makes channels.

import assert from 'node:assert/strict';

import { Status } from './channel.mjs';
import { decode, encode } from './protobuf.mjs';

const BoolValue = { value: [1, 'int32'] };
const Payload = { type: [1, 'int32'], body: [2, 'bytes'] };
const EchoStatus = { code: [1, 'int32'], message: [2, 'string'] };
const SimpleRequest = {
  response_size: [2, 'int32'], payload: [3, Payload], response_compressed: [6, BoolValue],
  response_status: [7, EchoStatus], expect_compressed: [8, BoolValue],
};
const SimpleResponse = { payload: [1, Payload] };
const StreamingInputCallRequest = { payload: [1, Payload], expect_compressed: [2, BoolValue] };
const StreamingInputCallResponse = { aggregated_payload_size: [1, 'int32'] };
const ResponseParameters = { size: [1, 'int32'], interval_us: [2, 'int32'], compressed: [3, BoolValue] };
const StreamingOutputCallRequest = {
  response_parameters: [2, [ResponseParameters]], payload: [3, Payload], response_status: [7, EchoStatus],
};
const StreamingOutputCallResponse = { payload: [1, Payload] };

const path = (method) => `/grpc.testing.TestService/${method}`;
const zeros = (size) => ({ body: Buffer.alloc(size) });
const flag = (value) => (value ? { value: 1 } : {});
const LARGE = { response_size: 314159, payload: zeros(271828) };

function checkPayload(payload, size) {
  assert.equal(payload.type, 0);
  assert.equal(payload.body.length, size);
  assert.ok(payload.body.every((byte) => byte === 0));
}

async function unaryCall(channel, request, options) {
  return channel.unary(path('UnaryCall'), encode(SimpleRequest, request), options);
}

async function largeUnary(channel, request = LARGE, options = {}) {
  const { messages, status, ...rest } = await unaryCall(channel, request, options);
  assert.equal(status.code, Status.OK, status.message);
  assert.equal(messages.length, 1);
  checkPayload(decode(SimpleResponse, messages[0].bytes).payload, 314159);
  return { compressed: messages[0].compressed, status, ...rest };
}

const duplexRequest = (responseSize, size) => encode(StreamingOutputCallRequest, {
  response_parameters: [{ size: responseSize }], payload: zeros(size),
});

async function pingPong(call, responseSize, size) {
  await call.send(duplexRequest(responseSize, size));
  const message = await call.next();
  assert.ok(message, 'a response');
  checkPayload(decode(StreamingOutputCallResponse, message.bytes).payload, responseSize);
}

async function inputCall(channel, messages, options) {
  const call = channel.call(path('StreamingInputCall'), options);
  for (const [message, compress] of messages) {
    await call.send(encode(StreamingInputCallRequest, message), { compress });
  }
  call.end();
  return call.collect();
}

async function outputCall(channel, parameters) {
  const request = encode(StreamingOutputCallRequest, { response_parameters: parameters });
  const { messages, status } = await channel.unary(path('StreamingOutputCall'), request);
  assert.equal(status.code, Status.OK, status.message);
  assert.equal(messages.length, parameters.length);
  messages.forEach(({ bytes }, index) => {
    checkPayload(decode(StreamingOutputCallResponse, bytes).payload, parameters[index].size);
  });
  return messages;
}

export const cases = {
  async empty_unary(connect) {
    const { messages, status } = await connect().unary(path('EmptyCall'), Buffer.alloc(0));
    assert.equal(status.code, Status.OK, status.message);
    assert.deepEqual(messages.map(({ bytes }) => bytes.length), [0]);
  },

  async large_unary(connect) {
    await largeUnary(connect());
  },

  async client_compressed_unary(connect) {
    const channel = connect();
    const probe = await unaryCall(channel, { ...LARGE, expect_compressed: flag(true) });
    assert.equal(probe.status.code, Status.INVALID_ARGUMENT);
    for (const encoding of ['gzip', 'deflate']) {
      await largeUnary(channel, { ...LARGE, expect_compressed: flag(true) }, { encoding });
      await largeUnary(channel, { ...LARGE, expect_compressed: flag(false) }, { encoding, compress: false });
    }
  },

  async server_compressed_unary(connect) {
    const channel = connect();
    const first = await largeUnary(channel, { ...LARGE, response_compressed: flag(true) });
    assert.equal(first.compressed, true);
    const second = await largeUnary(channel, { ...LARGE, response_compressed: flag(false) });
    assert.equal(second.compressed, false);
  },

  async client_streaming(connect) {
    const messages = [27182, 8, 1828, 45904].map((size) => [{ payload: zeros(size) }]);
    const answer = await inputCall(connect(), messages);
    assert.equal(answer.status.code, Status.OK, answer.status.message);
    const response = decode(StreamingInputCallResponse, answer.messages[0].bytes);
    assert.equal(response.aggregated_payload_size, 74922);
  },

  async client_compressed_streaming(connect) {
    const channel = connect();
    const first = { payload: zeros(27182), expect_compressed: flag(true) };
    const second = { payload: zeros(45904), expect_compressed: flag(false) };
    const probe = await inputCall(channel, [[first]]);
    assert.equal(probe.status.code, Status.INVALID_ARGUMENT);
    const answer = await inputCall(channel, [[first, true], [second, false]], { encoding: 'gzip' });
    assert.equal(answer.status.code, Status.OK, answer.status.message);
    const response = decode(StreamingInputCallResponse, answer.messages[0].bytes);
    assert.equal(response.aggregated_payload_size, 73086);
  },

  async server_streaming(connect) {
    await outputCall(connect(), [31415, 9, 2653, 58979].map((size) => ({ size })));
  },

  async server_compressed_streaming(connect) {
    const messages = await outputCall(connect(), [
      { size: 31415, compressed: flag(true) }, { size: 92653, compressed: flag(false) },
    ]);
    assert.deepEqual(messages.map(({ compressed }) => compressed), [true, false]);
  },

  async ping_pong(connect) {
    const call = connect().call(path('FullDuplexCall'));
    await pingPong(call, 31415, 27182);
    await pingPong(call, 9, 8);
    await pingPong(call, 2653, 1828);
    await pingPong(call, 58979, 45904);
    call.end();
    const { messages, status } = await call.collect();
    assert.equal(messages.length, 0);
    assert.equal(status.code, Status.OK, status.message);
  },

  async empty_stream(connect) {
    const call = connect().call(path('FullDuplexCall'));
    call.end();
    const { messages, status } = await call.collect();
    assert.equal(messages.length, 0);
    assert.equal(status.code, Status.OK, status.message);
  },

  async custom_metadata(connect) {
    const channel = connect();
    const metadata = {
      'x-grpc-test-echo-initial': 'test_initial_metadata_value',
      'x-grpc-test-echo-trailing-bin': Buffer.from([0xab, 0xab, 0xab]).toString('base64'),
    };
    const check = (received, { trailers }) => {
      assert.equal(received['x-grpc-test-echo-initial'], 'test_initial_metadata_value');
      assert.deepEqual(
        [...Buffer.from(trailers['x-grpc-test-echo-trailing-bin'], 'base64')], [0xab, 0xab, 0xab]);
    };
    const unary = await largeUnary(channel, LARGE, { metadata });
    check(unary.metadata, unary.status);
    const call = channel.call(path('FullDuplexCall'), { metadata });
    await pingPong(call, 314159, 271828);
    call.end();
    const duplex = await call.collect();
    assert.equal(duplex.status.code, Status.OK, duplex.status.message);
    check(duplex.metadata, duplex.status);
  },

  async status_code_and_message(connect) {
    const channel = connect();
    const response_status = { code: 2, message: 'test status message' };
    const unary = await unaryCall(channel, { response_status });
    assert.deepEqual([unary.status.code, unary.status.message], [2, 'test status message']);
    const call = channel.call(path('FullDuplexCall'));
    await call.send(encode(StreamingOutputCallRequest, { response_status }));
    call.end();
    const duplex = await call.collect();
    assert.deepEqual([duplex.status.code, duplex.status.message], [2, 'test status message']);
  },

  async special_status_message(connect) {
    const message = '\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n';
    const { status } = await unaryCall(connect(), { response_status: { code: 2, message } });
    assert.deepEqual([status.code, status.message], [2, message]);
  },

  async unimplemented_method(connect) {
    const { status } = await connect().unary(path('UnimplementedCall'), Buffer.alloc(0));
    assert.equal(status.code, Status.UNIMPLEMENTED);
  },

  async unimplemented_service(connect) {
    const unknown = '/grpc.testing.UnimplementedService/UnimplementedCall';
    const { status } = await connect().unary(unknown, Buffer.alloc(0));
    assert.equal(status.code, Status.UNIMPLEMENTED);
  },

  async cancel_after_begin(connect) {
    const call = connect().call(path('StreamingInputCall'));
    await new Promise(setImmediate); // HEADERS have left
    call.cancel();
    assert.equal((await call.status).code, Status.CANCELLED);
  },

  async cancel_after_first_response(connect) {
    const channel = connect();
    const call = channel.call(path('FullDuplexCall'));
    await pingPong(call, 31415, 27182);
    call.cancel();
    assert.equal((await call.status).code, Status.CANCELLED);
    await largeUnary(channel); // the connection lives on
  },

  async timeout_on_sleeping_server(connect) {
    const channel = connect();
    await largeUnary(channel); // the connection stands
    const call = channel.call(path('FullDuplexCall'), { timeoutMs: 1 });
    await call.send(encode(StreamingOutputCallRequest, { payload: zeros(27182) }));
    assert.equal((await call.status).code, Status.DEADLINE_EXCEEDED);
  },

  async rpc_soak(connect, { iterations }) {
    const channel = connect();
    for (let index = 0; index < iterations; index += 1) await largeUnary(channel);
  },

  async channel_soak(connect, { iterations }) {
    for (let index = 0; index < iterations; index += 1) {
      const channel = connect();
      await largeUnary(channel);
      channel.close();
    }
  },

  async concurrent_large_unary(connect, { iterations }) {
    const channel = connect();
    await Promise.all(Array.from({ length: iterations }, () => largeUnary(channel)));
  },
};
