// Runs a Node.js handler behind the Lambda Runtime API. Standard library only, Node 14 or newer.
//
// Asks for an event, calls the handler, posts the answer, and begins again, over one kept connection.
'use strict';

const fs = require('fs');
const net = require('net');
const path = require('path');
const { pathToFileURL } = require('url');

const PREFIX = '/2018-06-01/runtime/';
const EMIT = '/bellwire/v1/invocation/';
const ERROR_TYPE = 'Lambda-Runtime-Function-Error-Type';

class Fault extends Error {
  constructor(kind, message) {
    super(message);
    this.name = kind;
  }
}

// The smallest HTTP/1.1 client that the Runtime API needs: one call at a time.
class Api {
  constructor(address) {
    const colon = address.lastIndexOf(':');
    this.target = { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) };
    this.socket = null;
    this.waiting = null;
  }

  call(method, route, body, headers) {
    const target = route.startsWith('/') ? route : PREFIX + route;
    let head = `${method} ${target} HTTP/1.1\r\nHost: runtime\r\n`;
    for (const [name, value] of Object.entries(headers || {})) head += `${name}: ${value}\r\n`;
    if (method === 'POST') {
      head += `Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n`;
    }
    return new Promise((resolve) => {
      this.waiting = resolve;
      this.connect();
      this.socket.ref();
      this.socket.write(head + '\r\n' + (body || ''));
    });
  }

  connect() {
    if (this.socket) return;
    this.head = null;
    this.chunks = [];
    this.size = 0;
    this.socket = net.connect(this.target);
    this.socket.setNoDelay(true);
    this.socket.on('data', (chunk) => this.take(chunk));
    // The controller is gone; nobody is left to tell.
    this.socket.on('error', () => process.exit(0));
    this.socket.on('close', () => process.exit(0));
  }

  close() {
    this.socket.removeAllListeners('close');
    this.socket.destroy();
  }

  take(chunk) {
    this.chunks.push(chunk);
    this.size += chunk.length;
    if (!this.head) {
      const all = this.chunks.length === 1 ? chunk : Buffer.concat(this.chunks);
      const end = all.indexOf('\r\n\r\n');
      if (end < 0) {
        this.chunks = [all];
        return;
      }
      this.head = parseHead(all.toString('latin1', 0, end));
      this.chunks = [all.subarray(end + 4)];
      this.size = all.length - end - 4;
    }
    const length = Number(this.head.headers['content-length'] || 0);
    if (this.size < length) return;
    const all = this.chunks.length === 1 ? this.chunks[0] : Buffer.concat(this.chunks);
    const answer = { ...this.head, body: all.subarray(0, length) };
    this.head = null;
    this.chunks = [];
    this.size = 0;
    const resolve = this.waiting;
    this.waiting = null;
    resolve(answer);
  }
}

function parseHead(text) {
  const lines = text.split('\r\n');
  const headers = {};
  for (const line of lines.slice(1)) {
    const colon = line.indexOf(':');
    headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
  }
  return { status: Number(lines[0].split(' ')[1]), headers };
}

// Finds `dir/file.function` below the code folder.
async function load(root, name) {
  const base = path.basename(name);
  const dot = base.indexOf('.');
  if (dot <= 0 || dot === base.length - 1) {
    throw new Fault('Runtime.MalformedHandlerName', `handler '${name}' is not of the form file.function`);
  }
  const stem = path.join(root, path.dirname(name), base.slice(0, dot));
  const names = base.slice(dot + 1).split('.');
  const file = ['', '.js', '.mjs', '.cjs', '/index.js', '/index.mjs']
    .map((end) => stem + end)
    .find((candidate) => fs.statSync(candidate, { throwIfNoEntry: false })?.isFile());
  if (!file) {
    throw new Fault('Runtime.ImportModuleError', `Cannot find module '${stem}': there is no such .js, .mjs or .cjs file`);
  }
  let module;
  try {
    module = isModule(file) ? await import(pathToFileURL(file).href) : require(file);
  } catch (error) {
    if (error instanceof SyntaxError) error.name = 'Runtime.UserCodeSyntaxError';
    else if (error && (error.code === 'MODULE_NOT_FOUND' || error.code === 'ERR_MODULE_NOT_FOUND')) {
      error.name = 'Runtime.ImportModuleError';
    }
    throw error;
  }
  const find = (from) => names.reduce((value, part) => (value == null ? undefined : value[part]), from);
  const handler = find(module) || find(module.default);
  if (typeof handler !== 'function') {
    throw new Fault('Runtime.HandlerNotFound', `'${names.join('.')}' is not a function exported by '${file}'`);
  }
  return handler;
}

// `.mjs`, or `.js` below a package.json that says so.
function isModule(file) {
  if (file.endsWith('.mjs')) return true;
  if (!file.endsWith('.js')) return false;
  for (let dir = path.dirname(file); ; dir = path.dirname(dir)) {
    const manifest = path.join(dir, 'package.json');
    if (fs.existsSync(manifest)) return JSON.parse(fs.readFileSync(manifest, 'utf8')).type === 'module';
    if (dir === path.dirname(dir)) return false;
  }
}

// Sends an event to `topic.<name>` or `destination.<name>` if the invocation succeeds, with its outcome. `options`:
// type, subject, id, key. Rejects when the event is refused.
async function emit(id, to, data, { type, subject, id: name, key } = {}) {
  const values = { type, subject, id: name, partitionkey: key };
  const headers = {};
  for (const [attribute, value] of Object.entries(values)) {
    if (value !== undefined && value !== null) headers[`ce-${attribute}`] = encodeURIComponent(value);
  }
  // A connection of its own: several may be sent at the same time.
  const own = new Api(process.env.AWS_LAMBDA_RUNTIME_API);
  const route = `${EMIT}${encodeURIComponent(id)}/emit/${encodeURIComponent(to)}`;
  const answer = await own.call('POST', route, toJson(data), headers);
  own.close();
  if (answer.status !== 202) {
    throw new Error(`the event to ${to} was refused: ${fromJson(answer.body).errorMessage}`);
  }
}

function contextOf(headers, finish) {
  const deadline = Number(headers['lambda-runtime-deadline-ms'] || 0);
  return {
    awsRequestId: headers['lambda-runtime-aws-request-id'],
    invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'],
    tenantId: headers['lambda-runtime-aws-tenant-id'],
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
    callbackWaitsForEmptyEventLoop: true,
    emit: (to, data, options) => emit(headers['lambda-runtime-aws-request-id'], to, data, options),
    getRemainingTimeInMillis: () => Math.max(deadline - Date.now(), 0),
    done: finish,
    succeed: (result) => finish(null, result),
    fail: (error) => finish(error === undefined || error === null ? 'handled' : error),
  };
}

// Calls the handler; settles with its result, or with the error. A callback waits for the event loop to run empty
// unless the handler switched that off, as on Lambda.
function invoke(handler, event, headers) {
  return new Promise((resolve, reject) => {
    let idle = () => resolve(null);
    const onIdle = () => idle();
    const settle = (way, value) => {
      process.removeListener('beforeExit', onIdle);
      way(value);
    };
    let called = false;
    const finish = (error, result) => {
      if (called) return;
      called = true;
      const failed = error !== null && error !== undefined;
      const end = () => settle(failed ? reject : resolve, failed ? error : result);
      if (context.callbackWaitsForEmptyEventLoop === false) end();
      else idle = end;
    };
    process.on('beforeExit', onIdle);
    const context = contextOf(headers, finish);
    let returned;
    try {
      returned = handler(event, context, finish);
    } catch (error) {
      settle(reject, error);
      return;
    }
    if (returned && typeof returned.then === 'function') {
      called = true;
      idle = () => settle(reject, new Fault('Runtime.NodeJsExit', 'the promise of the handler can never settle: nothing is left to wait for'));
      returned.then((value) => settle(resolve, value), (error) => settle(reject, error));
    } else if (!called && handler.length < 3 && returned !== undefined) {
      called = true;
      settle(resolve, returned);
    }
  });
}

function toJson(value) {
  let text;
  try {
    text = JSON.stringify(value === undefined ? null : value);
  } catch (error) {
    throw new Fault('Runtime.MarshalError', `Unable to marshal response: ${error.message}`);
  }
  // Bytes would silently become an object of numbers.
  if (text === undefined || ArrayBuffer.isView(value)) {
    throw new Fault('Runtime.MarshalError', 'Unable to marshal response: bytes and functions have no JSON');
  }
  return text;
}

function fromJson(body) {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch (error) {
    throw new Fault('Runtime.UnmarshalError', `Unable to unmarshal input: ${error.message}`);
  }
}

// Prints an error, and returns the body and header that report it.
function report(error) {
  const isError = error instanceof Error || (error && typeof error.message === 'string');
  const shape = isError
    ? { errorType: String(error.name || 'Error'), errorMessage: String(error.message), trace: String(error.stack || '').split('\n') }
    : { errorType: typeof error, errorMessage: String(error), trace: [] };
  console.error(`[ERROR] ${shape.trace.length > 1 ? shape.trace.join('\n') : `${shape.errorType}: ${shape.errorMessage}`}`);
  const kind = shape.errorType.replace(/[^!-~]/g, '?');
  return [JSON.stringify(shape), { [ERROR_TYPE]: kind }];
}

let running = null;
const api = new Api(process.env.AWS_LAMBDA_RUNTIME_API);

// An error that nobody caught leaves the process in an unknown state: report it and go.
async function collapse(error) {
  const [body, headers] = report(error);
  // A call may be under way on the kept connection, so this one gets its own.
  const own = new Api(process.env.AWS_LAMBDA_RUNTIME_API);
  const id = running;
  const route = id === null ? 'init/error' : `invocation/${encodeURIComponent(id)}/error`;
  await own.call('POST', route, body, headers);
  process.exit(1);
}

async function serve(handler) {
  for (;;) {
    const { status, headers, body: payload } = await api.call('GET', 'invocation/next');
    if (status !== 200) {
      console.error(`the controller refused the next event: ${status}`);
      process.exit(1);
    }
    running = headers['lambda-runtime-aws-request-id'];
    const trace = headers['lambda-runtime-trace-id'];
    if (trace) process.env._X_AMZN_TRACE_ID = trace;
    else delete process.env._X_AMZN_TRACE_ID;
    const route = `invocation/${encodeURIComponent(running)}/`;
    let answer;
    try {
      // While the handler runs, only its own work keeps the process alive.
      api.socket.unref();
      const result = await invoke(handler, fromJson(payload), headers);
      answer = [route + 'response', toJson(result), {}];
    } catch (error) {
      answer = [route + 'error', ...report(error)];
    }
    const posted = await api.call('POST', ...answer);
    // 413 tells that the answer was too large, which is the invocation's failure, not ours.
    if (posted.status !== 202 && posted.status !== 413) {
      console.error(`the controller refused the answer: ${posted.status}`);
      process.exit(1);
    }
  }
}

process.on('uncaughtException', collapse);
process.on('unhandledRejection', (reason) => {
  const error = new Fault('Runtime.UnhandledPromiseRejection', String((reason && reason.message) || reason));
  if (reason && reason.stack) error.stack = reason.stack;
  collapse(error);
});

load(process.env.LAMBDA_TASK_ROOT || process.cwd(), process.env._HANDLER || '')
  .then(serve, async (error) => {
    const [body, headers] = report(error);
    await api.call('POST', 'init/error', body, headers);
    process.exit(1);
  });
