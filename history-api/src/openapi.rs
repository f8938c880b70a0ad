//! The OpenAPI document: made from the handlers' own annotations, with what holds for all of them added here.

use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, HeaderBuilder, ObjectBuilder, Ref, RefOr, ResponseBuilder};

use crate::problem::{FieldError, ProblemBody};

/// Operations that need no credential.
const OPEN: [&str; 6] = [
    "/api/v1/users",
    "/api/v1/auth/login",
    "/api/v1/auth/refresh",
    "/api/v1/openapi.json",
    "/healthz",
    "/readyz",
];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Godwit",
        description = "Chat-grade messaging on MQTT: accounts, conversations, history, search."
    ),
    components(schemas(ProblemBody, FieldError))
)]
pub(crate) struct Document;

/// Adds the credential and the errors that every operation may answer.
pub(crate) fn complete(document: &mut utoipa::openapi::OpenApi) {
    let components = document.components.get_or_insert_default();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "An access token (JWT), or a device token with the scope rest.",
        ))
        .build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    for (path, item) in &mut document.paths.paths {
        let operations = [
            (&mut item.get, false),
            (&mut item.put, false),
            (&mut item.post, OPEN.contains(&path.as_str())),
            (&mut item.delete, false),
            (&mut item.patch, false),
        ];
        for (operation, open_post) in operations {
            let Some(operation) = operation else { continue };
            let open = open_post || (OPEN.contains(&path.as_str()) && path != "/api/v1/users");
            if !open {
                operation.security = Some(vec![SecurityRequirement::new("bearer", Vec::<String>::new())]);
            }
            for (status, description) in [
                ("400", "Not in the form of the contract: malformed"),
                ("401", "No valid credential: unauthenticated"),
                ("403", "Not allowed: forbidden"),
                ("404", "Not there, or not yours: not_found"),
                ("405", "This path does not take this method: malformed"),
                ("409", "Contradicts what is there: conflict"),
                ("413", "Too large: too_large"),
                ("429", "Too often or too many: rate_limited, quota"),
                ("503", "Not available at the moment: unavailable"),
            ] {
                let problem = Content::new(Some(RefOr::<utoipa::openapi::Schema>::Ref(
                    Ref::from_schema_name("ProblemBody"),
                )));
                let mut response = ResponseBuilder::new()
                    .description(description)
                    .content("application/problem+json", problem);
                if matches!(status, "429" | "503") {
                    let seconds = HeaderBuilder::new()
                        .schema(Some(
                            ObjectBuilder::new().schema_type(utoipa::openapi::Type::Integer),
                        ))
                        .description(Some("Seconds"));
                    response = response.header("Retry-After", seconds.build());
                }
                operation
                    .responses
                    .responses
                    .entry(status.into())
                    .or_insert(RefOr::T(response.build()));
            }
        }
    }
}
