//! How the engine talks to the cluster: options, the driver's session, consistencies, time-outs, what the driver may repeat by itself.
//! Not here: statements and what they are for.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use scylla::client::execution_profile::{ExecutionProfile, ExecutionProfileHandle};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::{DbError, ExecutionError, PrepareError, RequestAttemptError};
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::retry::{DefaultRetryPolicy, FallthroughRetryPolicy};
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::response::query_result::{QueryResult, QueryRowsResult};
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency, Statement};

pub(super) use super::bind::{Bind, number};
use super::lane::is_repeated_outside;
use super::tls::Tls;
use crate::StoreError;

/// How long one attempt of a write may take before it is repeated: a little more than the server's own 2 s.
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a read may take with the driver's own repeats.
const READ_TIMEOUT: Duration = Duration::from_secs(6);
/// How long an attempt of a lightweight transaction may take.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(4);
/// How long one change of the schema may take: a busy store may need many seconds for a table.
pub(super) const SCHEMA_TIMEOUT: Duration = Duration::from_secs(60);
/// How long all nodes of the store that are up may take to agree on it.
const AGREEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// A read that has no answer by then is asked of another replica as well, once.
const SPECULATE_AFTER: Duration = Duration::from_millis(100);
/// A read that failed at once is tried again after this pause and its doubles, so many times: for 3 s in all.
const FIRST_READ_PAUSE: Duration = Duration::from_millis(50);
const READ_REPEATS: usize = 6;
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An idle connection is asked for life this often, and given up when it does not answer for as long again: a host that vanished
/// without a word costs its statements' time-outs for no longer.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// How many copies there are, where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replication {
    /// So many, anywhere. For one data centre, and for tests.
    Simple(u8),
    /// So many in each of these data centres.
    Datacenters(Vec<(String, u8)>),
}

/// Where the cluster is and how it is used. All nodes of one Godwit cluster must agree on everything but `nodes` and `threads`; what
/// they must agree on is checked at the start.
#[derive(Clone)]
pub struct Options {
    /// Contact points, `host` or `host:port` (9042).
    pub nodes: Vec<String>,
    /// The keyspace of the data; rows of lightweight transactions are in the keyspace of this name with `_own` behind it. Lower-case
    /// letters, digits and `_`, at most 40.
    pub keyspace: String,
    /// Name of the one cluster of Godwit whose data this is: a node that is set to another is refused.
    pub cluster: String,
    /// All nodes of Godwit are in this one data centre of the store, and read and write at LOCAL_QUORUM and LOCAL_SERIAL there; without
    /// it, at QUORUM and SERIAL over all.
    pub datacenter: Option<String>,
    /// Of both keyspaces, when the schema is made.
    pub replication: Replication,
    /// User and password, where the cluster asks for them.
    pub credentials: Option<(String, String)>,
    /// TLS, where the cluster takes it.
    pub tls: Option<Tls>,
    /// Threads of the engine, at least 1. One serves some 30,000 statements a second.
    pub threads: usize,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let credentials = self.credentials.as_ref().map(|(user, _)| (user, "…"));
        f.debug_struct("Options")
            .field("nodes", &self.nodes)
            .field("keyspace", &self.keyspace)
            .field("cluster", &self.cluster)
            .field("datacenter", &self.datacenter)
            .field("replication", &self.replication)
            .field("credentials", &credentials)
            .field("tls", &self.tls)
            .field("threads", &self.threads)
            .finish()
    }
}

impl Options {
    /// Of these contact points, with the keyspace `godwit` and three copies anywhere.
    pub fn new(nodes: Vec<String>) -> Self {
        Self {
            nodes,
            keyspace: "godwit".into(),
            cluster: "godwit".into(),
            datacenter: None,
            replication: Replication::Simple(3),
            credentials: None,
            tls: None,
            threads: 1,
        }
    }

    /// The keyspace of what lightweight transactions touch.
    pub fn own_keyspace(&self) -> String {
        format!("{}_own", self.keyspace)
    }

    /// For writes and reads.
    pub(super) fn consistency(&self) -> Consistency {
        match self.datacenter {
            Some(_) => Consistency::LocalQuorum,
            None => Consistency::Quorum,
        }
    }

    fn serial(&self) -> SerialConsistency {
        match self.datacenter {
            Some(_) => SerialConsistency::LocalSerial,
            None => SerialConsistency::Serial,
        }
    }

    /// What all nodes must agree on, as it is kept in `meta`.
    pub(super) fn agreed(&self) -> [(&'static str, String); 3] {
        let level = match &self.datacenter {
            Some(name) => format!("local {name}"),
            None => "all".into(),
        };
        [
            ("consistency", level),
            ("cluster", self.cluster.clone()),
            (super::schema::VERSION_NAME, super::schema::VERSION.to_string()),
        ]
    }

    fn check(&self) -> Result<(), StoreError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let name = &self.keyspace;
        if name.is_empty()
            || name.len() > 40
            || !name.chars().all(plain)
            || !name.starts_with(char::is_alphabetic)
        {
            return Err(StoreError::Refused(format!(
                "{name:?} is no name of a keyspace: 1 to 40 of a to z, 0 to 9 and _, beginning with a letter"
            )));
        }
        if self.nodes.is_empty() {
            return Err(StoreError::Refused("no node of the store is named".into()));
        }
        Ok(())
    }
}

/// A statement with its values.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) statement: PreparedStatement,
    pub(super) values: Vec<Bind>,
}

/// The driver's session and the three ways in which statements go out.
pub(super) struct Link {
    session: Session,
    writes: ExecutionProfileHandle,
    reads: ExecutionProfileHandle,
    serial_reads: ExecutionProfileHandle,
    claims: ExecutionProfileHandle,
    schema: ExecutionProfileHandle,
}

/// What kind of statement is prepared: this decides consistency, time-out, and that nothing but reads is repeated by the driver.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Write,
    Read,
    /// Finishes what lightweight transactions have begun.
    SerialRead,
    /// A lightweight transaction.
    Claim,
}

impl Link {
    /// Connects; fails if no node answers.
    pub(super) async fn open(options: &Options) -> Result<Self, StoreError> {
        options.check()?;
        let mut balance = DefaultPolicy::builder().token_aware(true);
        if let Some(name) = &options.datacenter {
            balance = balance.prefer_datacenter(name.clone()).permit_dc_failover(false);
        }
        let base = ExecutionProfile::builder()
            .load_balancing_policy(balance.build())
            .consistency(options.consistency())
            .serial_consistency(Some(options.serial()))
            .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
            .speculative_execution_policy(None);
        let writes = base
            .clone()
            .request_timeout(Some(WRITE_TIMEOUT))
            .build()
            .into_handle();
        let claims = base
            .clone()
            .request_timeout(Some(CLAIM_TIMEOUT))
            .build()
            .into_handle();
        let schema = base
            .clone()
            .request_timeout(Some(SCHEMA_TIMEOUT))
            .build()
            .into_handle();
        let speculative = SimpleSpeculativeExecutionPolicy {
            max_retry_count: 1,
            retry_interval: SPECULATE_AFTER,
        };
        let reads = base
            .clone()
            .request_timeout(Some(READ_TIMEOUT))
            .retry_policy(Arc::new(DefaultRetryPolicy::new()))
            .speculative_execution_policy(Some(Arc::new(speculative)));
        let serial = match options.serial() {
            SerialConsistency::LocalSerial => Consistency::LocalSerial,
            SerialConsistency::Serial => Consistency::Serial,
        };
        let serial_reads = base.consistency(serial).request_timeout(Some(CLAIM_TIMEOUT));
        let mut builder = SessionBuilder::new()
            .known_nodes(&options.nodes)
            .default_execution_profile_handle(writes.clone())
            .connection_timeout(CONNECT_TIMEOUT)
            .keepalive_interval(KEEPALIVE)
            .keepalive_timeout(KEEPALIVE)
            // Statements name their keyspaces; nothing else of the schema is looked at.
            .fetch_full_schema_metadata(false)
            .schema_agreement_timeout(AGREEMENT_TIMEOUT)
            .tcp_nodelay(true);
        if let Some((user, password)) = &options.credentials {
            builder = builder.user(user, password);
        }
        if let Some(tls) = &options.tls {
            builder = tls.used_by(builder)?;
        }
        let session = builder
            .build()
            .await
            .map_err(|e| StoreError::Unavailable(format!("no node of the store answers: {e}")))?;
        if let Some(name) = &options.datacenter {
            let known = session.get_cluster_state();
            let mut known: Vec<&str> = known
                .get_nodes_info()
                .iter()
                .filter_map(|node| node.datacenter.as_deref())
                .collect();
            known.sort_unstable();
            known.dedup();
            if !known.contains(&name.as_str()) {
                return Err(StoreError::Refused(format!(
                    "the store has no data centre {name:?}: there is {}",
                    known.join(", ")
                )));
            }
        }
        Ok(Self {
            session,
            writes,
            reads: reads.build().into_handle(),
            serial_reads: serial_reads.build().into_handle(),
            claims,
            schema,
        })
    }

    /// Prepares a statement for a use.
    pub(super) async fn prepare(&self, cql: &str, usage: Use) -> Result<PreparedStatement, StoreError> {
        let prepared = self.session.prepare(cql).await;
        let mut prepared = prepared.map_err(|e| not_prepared(&e, cql))?;
        let profile = match usage {
            Use::Write => &self.writes,
            Use::Read => &self.reads,
            Use::SerialRead => &self.serial_reads,
            Use::Claim => &self.claims,
        };
        prepared.set_execution_profile_handle(Some(profile.clone()));
        prepared.set_is_idempotent(usage == Use::Read);
        Ok(prepared)
    }

    /// Runs one statement once.
    pub(super) async fn run(
        &self,
        statement: &PreparedStatement,
        values: &[Bind],
    ) -> Result<QueryResult, ExecutionError> {
        self.session.execute_unpaged(statement, values).await
    }

    /// Runs statements on one partition as one mutation, once.
    pub(super) async fn together(&self, statements: &[Bound]) -> Result<(), ExecutionError> {
        if let [one] = statements {
            return self.run(&one.statement, &one.values).await.map(drop);
        }
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_execution_profile_handle(Some(self.writes.clone()));
        let mut values: Vec<&[Bind]> = Vec::with_capacity(statements.len());
        for bound in statements {
            batch.append_statement(bound.statement.clone());
            values.push(&bound.values);
        }
        self.session.batch(&batch, values).await.map(drop)
    }

    /// The rows that a statement finds. What fails at once, because no replica can be reached, is tried again for some seconds: a
    /// node that is restarted is nobody's business. What took its time is not.
    pub(super) async fn rows(
        &self,
        statement: &PreparedStatement,
        values: &[Bind],
    ) -> Result<QueryRowsResult, StoreError> {
        let attempt = || self.run(statement, values);
        let result = attempt
            .retry(read_pauses())
            .when(|e| !is_repeated_outside() && !matches!(e, ExecutionError::RequestTimeout(_)))
            .await
            .map_err(|e| unavailable(&e))?;
        result.into_rows_result().map_err(|e| unavailable(&e))
    }

    /// A change of the schema; agreed on by all nodes that are up when it returns. After [`StoreError::Unavailable`] nobody knows whether it happens, or
    /// still will.
    pub(super) async fn define(&self, cql: &str) -> Result<(), StoreError> {
        self.unprepared(cql, &self.schema).await.map(drop)
    }

    /// A question about the schema.
    pub(super) async fn ask(&self, cql: &str) -> Result<QueryRowsResult, StoreError> {
        let answer = self.unprepared(cql, &self.reads).await?;
        answer.into_rows_result().map_err(|e| unavailable(&e))
    }

    async fn unprepared(
        &self,
        cql: &str,
        profile: &ExecutionProfileHandle,
    ) -> Result<QueryResult, StoreError> {
        let mut statement = Statement::new(cql);
        statement.set_execution_profile_handle(Some(profile.clone()));
        let answer = self.session.query_unpaged(statement, ()).await;
        answer.map_err(|e| match &e {
            ExecutionError::LastAttemptError(RequestAttemptError::DbError(said, _)) if is_refusal(said) => {
                StoreError::Refused(format!("{e}; the statement was: {cql}"))
            }
            _ => StoreError::Unavailable(format!("{e}; the statement was: {cql}")),
        })
    }

    /// Waits until all nodes that are up have one schema.
    pub(super) async fn agree(&self) -> Result<(), StoreError> {
        self.session
            .await_schema_agreement()
            .await
            .map(drop)
            .map_err(|e| unavailable(&e))
    }
}

/// A store that says what is wrong with a statement will say so again; one that is busy, starting or gone may take it later.
fn is_refusal(said: &DbError) -> bool {
    use DbError::{AlreadyExists, ConfigError, FunctionFailure, Invalid, SyntaxError, Unauthorized};
    matches!(
        said,
        SyntaxError | Invalid | Unauthorized | ConfigError | AlreadyExists { .. } | FunctionFailure { .. }
    )
}

fn not_prepared(e: &PrepareError, cql: &str) -> StoreError {
    if let PrepareError::AllAttemptsFailed {
        first_attempt: RequestAttemptError::DbError(said, _),
    } = e
        && is_refusal(said)
    {
        return StoreError::Refused(format!(
            "the store does not take a statement (is its schema made?): {e}; it is: {cql}"
        ));
    }
    StoreError::Unavailable(format!("{e}; the statement was: {cql}"))
}

/// The pauses of a read that fails at once.
pub(super) fn read_pauses() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_READ_PAUSE)
        .with_max_times(READ_REPEATS)
        .with_jitter()
}

pub(super) fn unavailable(e: &impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_that_is_wrong_is_refused_and_one_that_a_busy_store_does_not_prepare_may_be_taken_later() {
        let said = |error: DbError| {
            let first_attempt = RequestAttemptError::DbError(error, "said".into());
            not_prepared(&PrepareError::AllAttemptsFailed { first_attempt }, "SELECT").retryable()
        };
        assert!(!said(DbError::Invalid));
        assert!(!said(DbError::Unauthorized));
        assert!(said(DbError::Overloaded));
        assert!(said(DbError::IsBootstrapping));
        assert!(said(DbError::ServerError));
    }
}
