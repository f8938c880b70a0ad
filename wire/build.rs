//! Compiles the .proto files without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(
        [
            "proto/godwit/v1/chat.proto",
            "proto/godwit/v1/stored.proto",
            "proto/godwit/peer/v1/peer.proto",
            "proto/godwit/peer/v1/splice.proto",
        ],
        ["proto"],
    )?;
    println!("cargo:rerun-if-changed=proto");
    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    config.include_file("all.rs");
    config.compile_fds(files)?;
    Ok(())
}
