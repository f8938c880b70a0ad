//! The `godwit` binary; what it does is the library's.

// Tuned at compile time by .cargo/config.toml.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    godwit_server::cli::main()
}
