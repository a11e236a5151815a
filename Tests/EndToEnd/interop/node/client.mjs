// usage: node client.mjs ADDRESS CASE [ITERATIONS] [CA_FILE]     CASE `list` prints those that there are

import { cases } from './cases.mjs';
import { Channel } from './channel.mjs';
import { device_batch, device_create_and_watch } from './device.mjs';

const all = { ...cases, device_batch, device_create_and_watch };
const [address, name, iterations = '10', caFile] = process.argv.slice(2);
if (name === 'list') {
  console.log(Object.keys(all).join('\n'));
} else if (all[name]) {
  const channels = [];
  const connect = () => {
    channels.push(new Channel(address, { caFile }));
    return channels.at(-1);
  };
  try {
    await all[name](connect, { iterations: Number(iterations) });
  } catch (error) {
    console.error(error);
    process.exitCode = 1;
  } finally {
    channels.forEach((channel) => channel.close());
  }
} else {
  console.error(`no case ${name}`);
  process.exitCode = 2;
}
