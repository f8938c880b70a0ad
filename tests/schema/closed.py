"""The served document with its answers closed: a field that it does not have is an error, where JSON Schema alone would let
it pass. Requests stay as they are."""

import copy

SCHEMAS = "#/components/schemas/"
SUFFIX = "Closed"
SEVERAL = ("allOf", "oneOf", "anyOf")


def closed(document):
    document = copy.deepcopy(document)
    schemas = document["components"]["schemas"]
    for name, schema in list(schemas.items()):
        # Closed where it is used: a part of an allOf must stay open.
        schemas[name + SUFFIX] = close(schema, whole=False)
    for item in document["paths"].values():
        for operation in item.values():
            if not isinstance(operation, dict):
                continue
            for response in operation.get("responses", {}).values():
                for media in response.get("content", {}).values():
                    if "schema" in media:
                        media["schema"] = close(media["schema"], whole=True)
    return document


def close(schema, whole):
    """`whole`: it describes a value of its own, not a part of one."""
    if not isinstance(schema, dict):
        return schema
    schema = dict(schema)
    if schema.get("$ref", "").startswith(SCHEMAS):
        schema["$ref"] += SUFFIX
    if "properties" in schema:
        schema["properties"] = {name: close(value, True) for name, value in schema["properties"].items()}
    for inner in ("items", "additionalProperties"):
        if inner in schema:
            schema[inner] = close(schema[inner], True)
    for several in SEVERAL:
        if several in schema:
            schema[several] = [close(part, False) for part in schema[several]]
    says_fields = any(key in schema for key in ("$ref", "properties", *SEVERAL))
    if whole and says_fields and "additionalProperties" not in schema:
        schema["unevaluatedProperties"] = False
    return schema
