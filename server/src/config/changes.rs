//! Which options two configurations differ in.

use super::Config;

/// Compares field by field; does not compile while one is missing.
macro_rules! differing {
    ($one:expr, $other:expr, $($option:ident)*) => {{
        let Config { $($option),* } = $one;
        let mut names = Vec::new();
        $(if *$option != $other.$option {
            names.push(stringify!($option));
        })*
        names
    }};
}

impl Config {
    /// The names of the options that are not the same in `other`.
    pub fn differing(&self, other: &Self) -> Vec<&'static str> {
        differing!(self, other,
            data_dir mqtt http admin mqtts
            https tls_cert tls_key tls tls_client_ca
            tls_client_auth tls_client_crl proxy_protocol proxy_from anonymous
            registration registration_token registrations_per_second direct cors_origins
            workers max_connections max_memory_mb connections_per_address connects_per_address connect_seconds
            mailbox_days mailbox_entries mailbox_bytes session_log_entries session_log_bytes
            session_days publishes_per_second publish_bytes_per_second retained_per_user
            retained_bytes_per_user max_keep_alive max_qos server_reference store_cache_mb
            store cql_nodes cql_keyspace cql_datacenter cql_replication cql_user cql_password cql_tls_ca cql_tls_cert cql_tls_key cluster node_name
            peer peer_advertise peer_key peer_tls_cert peer_tls_key peer_tls_ca roles advertise_mqtt
            advertise_http drain_seconds signing_key_file log log_format acl
        )
    }
}
