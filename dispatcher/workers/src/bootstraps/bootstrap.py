"""Runs a Python handler behind the Lambda Runtime API. Standard library only, Python 3.6 or newer.

Asks for an event, calls the handler, posts the answer, and begins again, over one kept connection.
"""

import importlib
import json
import logging
import os
import socket
import sys
import time
import traceback
from decimal import Decimal
from urllib.parse import quote

PREFIX = "/2018-06-01/runtime/"
EMIT = "/bellwire/v1/invocation/"
ERROR_TYPE = "Lambda-Runtime-Function-Error-Type"


class Fault(Exception):
    """An error with a name of the platform instead of its class's."""

    def __init__(self, kind, message, stack=()):
        super().__init__(message)
        self.kind = kind
        self.stack = list(stack)


class Api:
    """The smallest HTTP/1.1 client that the Runtime API needs."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.address = (host, int(port))
        self.socket = None
        self.buffer = b""

    def call(self, method, path, body=b"", headers=()):
        path = path if path.startswith("/") else PREFIX + path
        lines = ["%s %s HTTP/1.1" % (method, path), "Host: runtime"]
        lines += ["%s: %s" % pair for pair in headers]
        if method == "POST":
            lines += ["Content-Type: application/json", "Content-Length: %d" % len(body)]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        if self.socket is None:
            self.socket = socket.create_connection(self.address)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.buffer = b""
        self.socket.sendall(head + body)
        return self.read()

    def read(self):
        while b"\r\n\r\n" not in self.buffer:
            self.fill()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ", 2)[1])
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
        parts = [self.buffer]
        missing = length - len(self.buffer)
        while missing > 0:
            parts.append(self.receive())
            missing -= len(parts[-1])
        data = b"".join(parts)
        body, self.buffer = data[:length], data[length:]
        if headers.get("connection", "").lower() == "close":
            self.socket.close()
            self.socket = None
        return status, headers, body

    def fill(self):
        self.buffer += self.receive()

    def receive(self):
        data = self.socket.recv(262144)
        if not data:
            # The controller is gone; nobody is left to tell.
            os._exit(0)
        return data


class CognitoIdentity:
    cognito_identity_id = None
    cognito_identity_pool_id = None


class Context:
    """What handlers get as their second argument."""

    function_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME")
    function_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION")
    memory_limit_in_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    log_group_name = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME")
    log_stream_name = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME")

    def __init__(self, headers):
        self.aws_request_id = headers["lambda-runtime-aws-request-id"]
        self.invoked_function_arn = headers.get("lambda-runtime-invoked-function-arn", "")
        self.tenant_id = headers.get("lambda-runtime-aws-tenant-id")
        self.client_context = None
        self.identity = CognitoIdentity()
        self._deadline_ms = int(headers.get("lambda-runtime-deadline-ms", "0"))

    def get_remaining_time_in_millis(self):
        return max(self._deadline_ms - int(time.time() * 1000), 0)

    def emit(self, to, data=None, *, type=None, subject=None, id=None, key=None):
        """Sends an event to `topic.<name>` or `destination.<name>` if this invocation succeeds, with its outcome.

        `data` is anything with a JSON form. Raises ValueError when the event is refused.
        """
        values = {"type": type, "subject": subject, "id": id, "partitionkey": key}
        headers = [("ce-" + name, quote(str(value), safe=" ")) for name, value in values.items() if value is not None]
        path = "%s%s/emit/%s" % (EMIT, self.aws_request_id, quote(to, safe=""))
        # A connection of its own: threads of the handler may send at the same time.
        api = Api(os.environ["AWS_LAMBDA_RUNTIME_API"])
        status, _, body = api.call("POST", path, to_json(data), headers + [("Connection", "close")])
        if api.socket is not None:
            api.socket.close()
        if status != 202:
            raise ValueError("the event to %s was refused: %s" % (to, from_json(body)["errorMessage"]))

    def log(self, message):
        sys.stdout.write(str(message))

    def __repr__(self):
        return "LambdaContext(aws_request_id=%r, function_name=%r)" % (self.aws_request_id, self.function_name)


def load(name):
    """Finds `dir/module.function` below the code folder."""
    module_name, dot, function_name = name.rpartition(".")
    if not dot or not module_name or not function_name:
        raise Fault("Runtime.MalformedHandlerName", "handler '%s' is not of the form module.function" % name)
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        message = "Unable to import module '%s': %s" % (module_name, error)
        raise Fault("Runtime.ImportModuleError", message, stack_of(error))
    except SyntaxError as error:
        where = '  File "%s" Line %s\n    %s' % (error.filename, error.lineno, (error.text or "").rstrip())
        raise Fault("Runtime.UserCodeSyntaxError", "Syntax error in module '%s': %s" % (module_name, error), [where])
    handler = getattr(module, function_name, None)
    if not callable(handler):
        message = "Handler '%s' missing on module '%s'" % (function_name, module_name)
        raise Fault("Runtime.HandlerNotFound", message)
    return handler


def stack_of(error):
    """The traceback from the first frame that is the user's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [i for i, frame in enumerate(frames) if frame[0] == __file__ or "importlib" in frame[0]]
    first = 0
    while first in own:
        first += 1
    return traceback.format_list(frames[first:])


def describe(error, request_id=""):
    if isinstance(error, Fault):
        kind, stack = error.kind, error.stack
    else:
        kind, stack = type(error).__name__, stack_of(error)
    try:
        message = str(error)
    except Exception:
        message = "(the error has no text)"
    return {"errorMessage": message, "errorType": kind, "requestId": request_id, "stackTrace": stack}


def plain(value):
    """JSON for what the json module does not know: decimal numbers, as AWS's tables return them."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError("Object of type %s is not JSON serializable" % type(value).__name__)


def to_json(value):
    try:
        return json.dumps(value, default=plain).encode("utf-8")
    except Exception as error:
        raise Fault("Runtime.MarshalError", "Unable to marshal response: %s" % error)


def from_json(body):
    try:
        return json.loads(body.decode("utf-8"))
    except Exception as error:
        raise Fault("Runtime.UnmarshalError", "Unable to unmarshal input: %s" % error)


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass


def report(error, request_id=""):
    """Prints an error with its traceback, and returns the body and header that report it."""
    shape = describe(error, request_id)
    print("[ERROR] %s: %s" % (shape["errorType"], shape["errorMessage"]), file=sys.stderr)
    if shape["stackTrace"]:
        print("Traceback (most recent call last):\n" + "".join(shape["stackTrace"]), file=sys.stderr)
    flush()
    kind = "".join(c if " " < c < "\x7f" else "?" for c in shape["errorType"])
    return json.dumps(shape).encode("utf-8", "replace"), [(ERROR_TYPE, kind)]


def serve(api, handler):
    while True:
        status, headers, payload = api.call("GET", "invocation/next")
        if status != 200:
            sys.exit("the controller refused the next event: %d" % status)
        context = Context(headers)
        request_id = context.aws_request_id
        trace = headers.get("lambda-runtime-trace-id")
        if trace:
            os.environ["_X_AMZN_TRACE_ID"] = trace
        else:
            os.environ.pop("_X_AMZN_TRACE_ID", None)
        path = "invocation/%s/" % request_id
        try:
            body = to_json(handler(from_json(payload), context))
        except Exception as error:
            body, error_headers = report(error, request_id)
            status, _, _ = api.call("POST", path + "error", body, error_headers)
        else:
            flush()
            status, _, _ = api.call("POST", path + "response", body)
        # 413 tells that the answer was too large, which is the invocation's failure, not ours.
        if status not in (202, 413):
            sys.exit("the controller refused the answer: %d" % status)
        del payload, body, context


def main():
    api = Api(os.environ["AWS_LAMBDA_RUNTIME_API"])
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(stream=sys.stdout, format="[%(levelname)s]\t%(message)s")
    # The code folder comes first; the folder of this file is not the user's.
    sys.path[0] = os.environ.get("LAMBDA_TASK_ROOT", os.getcwd())
    try:
        handler = load(os.environ["_HANDLER"])
    except Exception as error:
        body, headers = report(error)
        api.call("POST", "init/error", body, headers)
        sys.exit(1)
    serve(api, handler)


if __name__ == "__main__":
    main()
