// CreateDevice, WatchSaga and GetSaga of the real service.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';

import { Status } from './channel.mjs';
import { decode, encode } from './protobuf.mjs';

// What is used here of proto/cloudphone/device/v1.
const Entry = { key: [1, 'string'], value: [2, 'string'] };
const CreateDeviceRequest = {
  request_id: [1, 'string'], name: [2, 'string'], user_id: [6, 'string'], provider_options: [11, [Entry]],
  return_when: [12, 'int32'], batch_id: [14, 'string'],
};
const Connection = { host: [1, 'string'], adb_port: [2, 'int32'], webrtc_port: [3, 'int32'] };
const Device = { device_id: [1, 'string'], name: [2, 'string'], status: [5, 'int32'], connection: [13, Connection] };
const CreateDeviceResponse = { saga_id: [1, 'string'], device: [2, Device] };
const GetDeviceRequest = { device_id: [1, 'string'] };
const SagaRequest = { saga_id: [1, 'string'] };
const Saga = {
  saga_id: [1, 'string'], status: [3, 'int32'], step_index: [4, 'int32'], current_step: [5, 'string'],
  device_id: [8, 'string'], last_sequence: [14, 'int32'],
};
const SagaEvent = { saga_id: [1, 'string'], sequence: [2, 'int32'], type: [4, 'int32'], saga_status: [9, 'int32'] };

const CreateDevicesResult = {
  index: [1, 'int32'], saga_id: [4, 'string'], device: [5, Device], error: [6, { code: [1, 'int32'] }],
};

const RETURN_WHEN_ACCEPTED = 2;
const RETURN_WHEN_FINISHED = 3;
const SAGA_STARTED = 1;
const SAGA_COMPLETED = 10;
const COMPLETED = 2;
const RUNNING = 2;

export async function device_create_and_watch(connect) {
  const channel = connect();
  const unary = async (method, requestType, request, responseType) => {
    const path = `/cloudphone.device.v1.DeviceService/${method}`;
    const { messages, status } = await channel.unary(path, encode(requestType, request), { timeoutMs: 30000 });
    assert.equal(status.code, Status.OK, status.message);
    assert.equal(messages.length, 1);
    return decode(responseType, messages[0].bytes);
  };

  const { saga_id, device } = await unary('CreateDevice', CreateDeviceRequest, {
    request_id: randomUUID(), name: 'made by node', user_id: 'node', return_when: RETURN_WHEN_ACCEPTED,
  }, CreateDeviceResponse);
  assert.match(saga_id, /^saga_[0-9]{13}_/);

  const watch = await channel.unary(
    '/cloudphone.device.v1.DeviceService/WatchSaga', encode(SagaRequest, { saga_id }), { timeoutMs: 30000 });
  assert.equal(watch.status.code, Status.OK, watch.status.message);
  const events = watch.messages.map(({ bytes }) => decode(SagaEvent, bytes));
  assert.deepEqual(events.map(({ sequence }) => sequence), events.map((_, index) => index + 1));
  assert.deepEqual([events[0].type, events.at(-1).type], [SAGA_STARTED, SAGA_COMPLETED]);

  const saga = await unary('GetSaga', SagaRequest, { saga_id }, Saga);
  assert.deepEqual([saga.status, saga.step_index, saga.current_step], [COMPLETED, 4, 'START_DEVICE']);
  assert.deepEqual([saga.device_id, saga.last_sequence], [device.device_id, events.at(-1).sequence]);

  const made = await unary('GetDevice', GetDeviceRequest, { device_id: device.device_id }, Device);
  assert.deepEqual([made.name, made.status], ['made by node', RUNNING]);
  assert.ok(made.connection.host && made.connection.adb_port);
}

// As many creations as iterations on one stream, a third of them wrong (interop/batch.py says how); each has one result.
export async function device_batch(connect, { iterations }) {
  const batch = process.env.DEVICE_BATCH;
  const call = connect().call('/cloudphone.device.v1.DeviceService/CreateDevices');
  for (let number = 1; number <= iterations; number++) {
    await call.send(encode(CreateDeviceRequest, {
      request_id: number % 9 === 6 ? '' : `${batch}-${number}`, name: number % 9 === 3 ? '' : `${batch} ${number}`,
      user_id: 'user-1', batch_id: batch, return_when: RETURN_WHEN_FINISHED,
      provider_options: number % 9 === 0 ? [{ key: 'fail', value: 'create:refused' }] : [],
    }));
  }
  call.end();
  const { messages, status } = await call.collect();
  assert.equal(status.code, Status.OK, status.message);
  const results = messages.map(({ bytes }) => decode(CreateDevicesResult, bytes));
  const indexes = new Set(results.map(({ index }) => index));
  assert.deepEqual([results.length, indexes.size], [iterations, iterations]);
  for (const { index, saga_id, device, error } of results) {
    assert.equal(error?.code ?? Status.OK, index % 3 === 0 ? Status.INVALID_ARGUMENT : Status.OK);
    assert.equal(device !== undefined, index % 3 !== 0);
    assert.equal(saga_id !== '', index % 3 !== 0 || index % 9 === 0);
  }
}
