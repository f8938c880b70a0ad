//! The `godwit` binary with the bugs compiled in that the kill tests must find, asleep until `GODWIT_PLANTED` names one.
//! Never shipped.

fn main() -> std::process::ExitCode {
    godwit_server::cli::main()
}
