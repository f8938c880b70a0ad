"""What schemathesis is told in the runs that shall succeed (SCHEMATHESIS_HOOKS): a login of its own for every request where
operations end sessions, and bodies that name what is there. Every second generated value is left as it is."""

import collections
import http.client
import json
import os
import time
import urllib.parse

import schemathesis

API = urllib.parse.urlsplit(os.environ["SCHEMA_API"])
LOGIN = json.loads(os.environ["SCHEMA_LOGIN"])
KNOWN = json.loads(os.environ["SCHEMA_KNOWN"])
ENDING = "SCHEMA_ENDING" in os.environ
# Failed logins are limited by address: those here are not those of schemathesis.
FROM = ("127.0.0.9", 0)
TURNS = collections.Counter()


def logged_in():
    for _ in range(3):
        connection = http.client.HTTPConnection(API.hostname, API.port, timeout=30, source_address=FROM)
        connection.request("POST", "/api/v1/auth/login", json.dumps(LOGIN), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        if answer.status == 200:
            return body
        # Wrong passwords were tried for this name.
        time.sleep(min(int(answer.headers.get("Retry-After", "1")), 11))
    raise RuntimeError(f"the login was answered {answer.status}")


def turn(what):
    """Every second time."""
    TURNS[what] += 1
    return TURNS[what] % 2 == 1


def one_of(name, *bodies):
    return bodies[TURNS[name] // 2 % len(bodies)]


SEND = "POST /api/v1/conversations/{conversation_id}/messages"
BODIES = {
    "POST /api/v1/auth/login": lambda: LOGIN,
    "POST /api/v1/auth/refresh": lambda: {"refresh_token": logged_in()["refresh_token"]},
    "POST /api/v1/auth/password": lambda: {
        "current_password": LOGIN["password"], "new_password": LOGIN["password"]},
    "POST /api/v1/conversations": lambda: {"type": "one_on_one", "user_id": KNOWN["user_id"]},
    SEND: lambda: one_of(
        SEND,
        {"content": "the harbour again"},
        {"content": "an answer", "reply_to": KNOWN["message_id"], "content_type": "text"},
        {"content": "AAEC", "content_type": "encrypted"},
    ),
    "POST /api/v1/contacts": lambda: {"username": KNOWN["username"]},
    "POST /api/v1/groups": lambda: {"name": "Pier", "members": [KNOWN["user_id"]], "history": "all"},
    "POST /api/v1/groups/{group_id}/members": lambda: {"user_id": KNOWN["sender"]},
}


def label(context):
    return f"{context.operation.method.upper()} {context.operation.path}"


@schemathesis.hook
def map_body(context, body):
    known = BODIES.get(label(context))
    return known() if known and turn(label(context)) else body


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    if ENDING and path_parameters and "session_id" in path_parameters and turn("session"):
        return {"session_id": logged_in()["session_id"]}
    return path_parameters


if ENDING:

    @schemathesis.auth(refresh_interval=None)
    class FreshLogin:
        """Of the user who has nothing to lose."""

        def get(self, case, context):
            return logged_in()["access_token"]

        def set(self, case, data, context):
            case.headers = case.headers or {}
            case.headers["Authorization"] = f"Bearer {data}"
