"""What schemathesis is told in the runs that shall succeed (SCHEMATHESIS_HOOKS): a login of its own for every request where
operations end sessions, and bodies that name what is there. Half of the generated values are left as they are."""

import json
import os
import random
import urllib.request

import schemathesis

API = os.environ["SCHEMA_API"] + "/api/v1"
LOGIN = json.loads(os.environ["SCHEMA_LOGIN"])
KNOWN = json.loads(os.environ["SCHEMA_KNOWN"])
ENDING = "SCHEMA_ENDING" in os.environ
CHOOSE = random.Random(int(os.environ["SCHEMA_SEED"]))


def logged_in():
    request = urllib.request.Request(
        API + "/auth/login",
        data=json.dumps(LOGIN).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


BODIES = {
    "POST /api/v1/auth/login": lambda: LOGIN,
    "POST /api/v1/auth/refresh": lambda: {"refresh_token": logged_in()["refresh_token"]},
    "POST /api/v1/auth/password": lambda: {
        "current_password": LOGIN["password"], "new_password": LOGIN["password"]},
    "POST /api/v1/conversations": lambda: {"type": "one_on_one", "user_id": KNOWN["user_id"]},
    "POST /api/v1/conversations/{conversation_id}/messages": lambda: CHOOSE.choice([
        {"content": "the harbour again"},
        {"content": "an answer", "reply_to": KNOWN["message_id"], "content_type": "text"},
        {"content": "AAEC", "content_type": "encrypted"},
    ]),
    "POST /api/v1/contacts": lambda: {"username": KNOWN["username"]},
    "POST /api/v1/groups": lambda: {"name": "Pier", "members": [KNOWN["user_id"]], "history": "all"},
    "POST /api/v1/groups/{group_id}/members": lambda: {"user_id": KNOWN["sender"]},
}


def label(context):
    return f"{context.operation.method.upper()} {context.operation.path}"


@schemathesis.hook
def map_body(context, body):
    known = BODIES.get(label(context))
    return known() if known and CHOOSE.random() < 0.5 else body


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    if ENDING and path_parameters and "session_id" in path_parameters and CHOOSE.random() < 0.5:
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
