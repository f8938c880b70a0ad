//! What a node is told: cassandra.yaml, the log's form, the flags of the Java virtual machine, and the reason of each that is not Cassandra's
//! own default. Nothing is started here.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::place::{CQL_PORT, STORAGE_PORT};
use crate::{Options, Paxos};

/// The data centre that every node says it is in, for `NetworkTopologyStrategy`.
pub const DATACENTER: &str = "datacenter1";

/// Tokens a node, as Cassandra 5 ships.
const TOKENS: usize = 16;

/// Writes a node's configuration into its folder.
pub(crate) fn write(folder: &Path, number: usize, addresses: &[Ipv4Addr], options: &Options) -> Result<()> {
    for sub in ["data", "commitlog", "hints", "caches", "cdc", "tmp"] {
        fs::create_dir_all(folder.join(sub))?;
    }
    fs::write(folder.join("logback.xml"), LOGBACK)?;
    let yaml: String = settings(folder, number, addresses, options)?
        .iter()
        // A JSON value is a YAML value.
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect();
    fs::write(folder.join("cassandra.yaml"), yaml)?;
    Ok(())
}

fn settings(
    folder: &Path,
    number: usize,
    addresses: &[Ipv4Addr],
    options: &Options,
) -> Result<BTreeMap<String, Value>> {
    let path = |sub: &str| {
        let path = folder.join(sub);
        path.to_str()
            .map(str::to_owned)
            .with_context(|| format!("{} is not UTF-8", path.display()))
    };
    let address = addresses[number].to_string();
    // Every node is a seed: so each starts, and starts again, without waiting for another, and any may be the first.
    let seeds: Vec<String> = addresses
        .iter()
        .map(|address| format!("{address}:{STORAGE_PORT}"))
        .collect();
    let mut all = json!({
        "cluster_name": "godwit tests",
        "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
        "endpoint_snitch": "SimpleSnitch",
        "seed_provider": [{
            "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
            "parameters": [{ "seeds": seeds.join(",") }],
        }],
        "listen_address": address,
        "rpc_address": address,
        "storage_port": STORAGE_PORT,
        "native_transport_port": CQL_PORT,
        "data_file_directories": [path("data")?],
        "commitlog_directory": path("commitlog")?,
        "hints_directory": path("hints")?,
        "saved_caches_directory": path("caches")?,
        "cdc_raw_directory": path("cdc")?,
        // Given, not allocated: nodes can join all at once, and the ring is the same in every run.
        "num_tokens": TOKENS,
        "initial_token": tokens(number, addresses.len()),
        // There is nothing to stream into a cluster that is new.
        "auto_bootstrap": false,
        // A write is answered when it is on the disk, not up to ten seconds earlier. Writes of up to this window share one sync.
        "commitlog_sync": "group",
        "commitlog_sync_group_window": "5ms",
        // Bounds the disk of a long run.
        "commitlog_total_space": "512MiB",
        // What the server's own cassandra.yaml says; what is compiled in is "ignore".
        "disk_failure_policy": "stop",
        "commit_failure_policy": "stop",
        // What is compiled in. The server's own file says one second, which three servers beside a build do not always keep.
        "cas_contention_timeout": "1800ms",
        // A test that drops its tables leaves no copies of them.
        "auto_snapshot": false,
        "paxos_variant": match options.paxos { Paxos::V1 => "v1", Paxos::V2 => "v2" },
        "paxos_state_purging": match options.paxos { Paxos::V1 => "legacy", Paxos::V2 => "repaired" },
    });
    let mut all: BTreeMap<String, Value> = all
        .as_object_mut()
        .map(std::mem::take)
        .into_iter()
        .flatten()
        .collect();
    all.extend(options.settings.iter().cloned());
    Ok(all)
}

/// This node's tokens: the ring in equal parts, dealt to the nodes in turn.
fn tokens(number: usize, nodes: usize) -> String {
    let parts = (TOKENS * nodes) as i128;
    (0..TOKENS)
        .map(|turn| {
            let part = (turn * nodes + number) as i128;
            (i128::from(i64::MIN) + 1 + part * ((1_i128 << 64) / parts)).to_string()
        })
        .collect::<Vec<_>>()
        .join(",")
}

/// To standard output, which is the node's log. The line with the whole configuration is left out.
const LOGBACK: &str = r#"<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{HH:mm:ss.SSS} %-5level %logger{0}: %msg%n</pattern></encoder>
  </appender>
  <logger name="org.apache.cassandra.config.Config" level="WARN"/>
  <root level="INFO"><appender-ref ref="OUT"/></root>
</configuration>
"#;

/// Packages of Java that Cassandra 5 and its libraries reach into: compiled against, or by reflection.
const EXPORTS: [&str; 7] = [
    "java.base/java.lang.ref",
    "java.base/jdk.internal.misc",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.sql/java.sql",
    "jdk.unsupported/sun.misc",
];
const OPENS: [&str; 13] = [
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.lang.reflect",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/sun.nio.ch",
    "jdk.management/com.sun.management.internal",
];

/// The arguments of `java` for a node whose folder is `folder`, of a cluster of `nodes`.
pub(crate) fn arguments(folder: &Path, nodes: usize, classpath: &str, options: &Options) -> Vec<String> {
    let folder = folder.display();
    let mut flags: Vec<String> = Vec::new();
    flags.extend(EXPORTS.map(|package| format!("--add-exports={package}=ALL-UNNAMED")));
    flags.extend(OPENS.map(|package| format!("--add-opens={package}=ALL-UNNAMED")));
    flags.push(format!("-Xmx{}m", options.heap_mib.max(256)));
    if options.long_running {
        flags.push("-XX:+UseG1GC".to_owned());
    } else {
        // Measured: half the processor time of a start, and a quarter less memory.
        flags.extend(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"].map(str::to_owned));
    }
    flags.extend(
        [
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:+PerfDisableSharedMem",
            "-Djava.net.preferIPv4Stack=true",
            "-Djdk.attach.allowAttachSelf=true",
            "-Dio.netty.tryReflectionSetAccessible=true",
            "-Dcassandra-foreground=yes",
            // How long a new node listens before it joins. Thirty seconds are for networks, not for loopback.
            "-Dcassandra.ring_delay_ms=1000",
            // How soon a node that missed a change of the schema asks for it; the default is a minute.
            "-Dcassandra.migration_delay_ms=1000",
        ]
        .map(str::to_owned),
    );
    if nodes == 1 {
        flags.push("-Dcassandra.skip_wait_for_gossip_to_settle=0".to_owned());
    } else {
        // A node lets clients in when it knows who is up, or it would refuse QUORUM for a moment after each start. Eight seconds by default.
        flags.extend(
            [
                "-Dcassandra.gossip_settle_min_wait_ms=1000",
                "-Dcassandra.gossip_settle_interval_ms=500",
            ]
            .map(str::to_owned),
        );
    }
    if let Some(agent) = classpath.split(':').find(|jar| jar.contains("/jamm-")) {
        // Measures what objects take in memtables.
        flags.push(format!("-javaagent:{agent}"));
    }
    flags.extend([
        format!("-Djava.io.tmpdir={folder}/tmp"),
        format!("-Dcassandra.storagedir={folder}"),
        format!("-Dcassandra.config=file://{folder}/cassandra.yaml"),
        format!("-Dlogback.configurationFile=file://{folder}/logback.xml"),
    ]);
    flags.extend(options.java.iter().cloned());
    flags.extend([
        "-cp".to_owned(),
        classpath.to_owned(),
        "org.apache.cassandra.service.CassandraDaemon".to_owned(),
    ]);
    flags
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn three_nodes_have_48_tokens_between_them_in_equal_steps_and_in_turn() {
        let mut ring: Vec<(i64, usize)> = (0..3)
            .flat_map(|node| {
                tokens(node, 3)
                    .split(',')
                    .map(|token| (token.parse().expect("64 bits"), node))
                    .collect::<Vec<_>>()
            })
            .collect();
        ring.sort_unstable();
        assert_eq!(ring.len(), 48);
        let steps: BTreeSet<i64> = ring.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert_eq!(steps.len(), 1);
        assert!(
            ring.iter()
                .enumerate()
                .all(|(place, (_, node))| place % 3 == *node)
        );
    }

    #[test]
    fn a_given_setting_takes_the_place_of_ours_and_a_path_with_quotes_stays_one_value() {
        let options = Options::default()
            .set("commitlog_sync", "batch")
            .set("read_request_timeout", "2s");
        let address = [Ipv4Addr::LOCALHOST];
        let all = settings(Path::new("/a \"b\""), 0, &address, &options).expect("settings");
        assert_eq!(all["commitlog_sync"], "batch");
        assert_eq!(all["read_request_timeout"], "2s");
        assert_eq!(all["hints_directory"].to_string(), r#""/a \"b\"/hints""#);
    }
}
