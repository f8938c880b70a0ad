//! What fuzzing needs besides the targets inside `godwit-broker` (its feature `fuzzing`): the targets that public
//! functions are enough for, and the engine that makes inputs. Who runs them is `examples/fuzz.rs` and `libfuzzer/`.

mod json;
pub mod mutation;
mod proxy;
mod topics;

pub use json::json;
pub use proxy::proxy;
pub use topics::topics;
