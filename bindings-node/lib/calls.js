'use strict';

// Calls that the compiled part answers later, and listeners that it tells.

const { fromJson } = require('./errors.js');
const native = require('./native.js');

/** What is done with the answer to each call that goes on. */
const calls = new Map();
/** Who is told what. They don't keep the process alive. */
const listeners = new Map();
let last = 0;

const bridge = new native.Bridge(() => {
  for (let message = bridge.take(); message; message = bridge.take()) {
    const { to, error, value } = message;
    const settle = calls.get(to);
    if (settle !== undefined) {
      calls.delete(to);
      if (calls.size === 0) bridge.keepAlive(false);
      settle(message);
      continue;
    }
    try {
      listeners.get(to)?.(error == null ? null : fromJson(error), value);
    } catch (thrown) {
      // It is the listener's, and ends nobody else's news.
      process.nextTick(() => {
        throw thrown;
      });
    }
  }
});

function number() {
  do last = last === 0xffffffff ? 1 : last + 1;
  while (calls.has(last) || listeners.has(last));
  return last;
}

/** Begins a call, and resolves with its answer: `error` as JSON, or a `value`. */
function begin(ask) {
  return new Promise((resolve) => {
    const call = number();
    ask(call);
    if (calls.size === 0) bridge.keepAlive(true);
    calls.set(call, resolve);
  });
}

/** The value that a call is answered, or the error thrown. */
async function call(ask) {
  const { error, value } = await begin(ask);
  // Made here, so that its stack shows who waited.
  if (error != null) throw fromJson(error);
  return value;
}

/** As `call`, for what is told as JSON. */
async function json(ask) {
  const { error, value } = await begin(ask);
  if (error != null) throw fromJson(error);
  return JSON.parse(value);
}

/** What is answered at once, or the error thrown. */
function now(ask) {
  try {
    return ask();
  } catch (error) {
    if (!(error instanceof Error) || !error.message.startsWith('{"code":')) throw error;
    throw fromJson(error.message);
  }
}

/** Has `told(error, value)` called from now on; returns its number. */
function listen(told) {
  const listener = number();
  listeners.set(listener, told);
  return listener;
}

function unlisten(listener) {
  listeners.delete(listener);
}

module.exports = { begin, bridge, call, json, listen, native, now, unlisten };
