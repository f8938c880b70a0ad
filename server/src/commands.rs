//! What each command does. They return an exit code; what went wrong is one line on standard error.

mod operate;
mod sessions;

use std::io::{self, BufRead as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::admin::{Backup, Failure};
use crate::cli::{Cli, FAILED, NodeVerb, Options, Place, SessionVerb, ShardVerb, USAGE, UserVerb, Verb};
use crate::config::{Config, ConfigError, Engine, Flags, Listen, Settings, unknown_variables};
use crate::sessions::Kick;
use crate::{DataFolder, Listeners, Running, Shutdown, StartError, logs, serve, tls};

/// Longest password line read.
const PASSWORD_LINE: u64 = 4_096;
/// How long a running server may take to add a user.
const ADD_TIME: Duration = Duration::from_secs(20);
/// How long a running server may take to write a backup.
const BACKUP_TIME: Duration = Duration::from_secs(24 * 3_600);

/// Body of `POST /users` on the admin listener.
#[derive(Serialize)]
struct NewUser {
    username: String,
    password: String,
    admin: bool,
}

/// What is answered to it, as far as it is told.
#[derive(Deserialize)]
struct Added {
    user_id: String,
    username: String,
    admin: bool,
}

/// Runs a command; gives the exit code.
pub(crate) fn run(cli: Cli) -> u8 {
    let done = match cli.command {
        Verb::Serve(options) => run_server(options),
        Verb::Backup { dir, options } => backup(&dir, options),
        Verb::Restore { from, options } => restore(&from, options),
        Verb::User(UserVerb::Add {
            name,
            administrator,
            password_stdin,
            place,
        }) => add(name, administrator, password_stdin, place),
        Verb::CheckConfig(options) => check(options),
        Verb::Schema { check, options } => operate::schema(check, options),
        Verb::Node(NodeVerb::Ls(options)) => operate::nodes(options),
        Verb::Node(NodeVerb::Drain { name, options }) => operate::drain(name, options),
        Verb::Shard(ShardVerb::Ls(options)) => operate::shards(options),
        Verb::Session(SessionVerb::Ls { user, options }) => sessions::list(&user, options),
        Verb::Session(SessionVerb::Kick {
            user,
            client,
            all: _,
            forget,
            options,
        }) => {
            let kick = Kick {
                user,
                client_id: client,
                forget,
            };
            sessions::kick(&kick, options)
        }
    };
    match done {
        Ok(()) => 0,
        Err(error) => {
            say_error(&format!("{error:#}"));
            if is_usage(&error) { USAGE } else { FAILED }
        }
    }
}

/// One line on standard error.
pub(crate) fn say_error(text: &str) {
    // Nobody is left to tell if this fails.
    let _ = writeln!(io::stderr(), "godwit: {text}");
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}").context("standard output")
}

fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<ConfigError>()
        || matches!(
            error.downcast_ref(),
            Some(StartError::Config(_) | StartError::Tls(_))
        )
}

fn load(options: Options) -> Result<Config, ConfigError> {
    Config::load(options.flags, options.config.as_deref())
}

fn run_server(options: Options) -> anyhow::Result<()> {
    let config = load(options.clone())?;
    logs::start(&config)?;
    for name in unknown_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())) {
        tracing::warn!(
            name,
            "there is no option for this variable of the environment: it is ignored"
        );
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("signals")?;
    let shutdown = Shutdown::default();
    let early = end_while_starting(&shutdown)?;
    let started = serve(config, None, shutdown);
    early.close();
    let running = match started {
        Err(StartError::Stopped) => {
            tracing::info!("ended before it had started");
            return Ok(());
        }
        started => started?,
    };
    let router = running.router().clone();
    let waiting = signals.handle();
    router.on_failure(move || waiting.close());
    wait_for_end(&mut signals, &running, &options);
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("signals")?;
    let deadline = running.deadline();
    std::thread::Builder::new()
        .name("godwit-deadline".into())
        .spawn(move || watch_end(signals, deadline))?;
    running.stop();
    if router.has_failed() {
        bail!("a worker has failed, see the log; what was acknowledged is stored, start the server again");
    }
    Ok(())
}

/// Until it is closed, SIGTERM and SIGINT begin the shutdown; who waits for them later hears of them too.
fn end_while_starting(shutdown: &Shutdown) -> anyhow::Result<signal_hook::iterator::Handle> {
    let (mut signals, shutdown) = (
        Signals::new([SIGTERM, SIGINT]).context("signals")?,
        shutdown.clone(),
    );
    let handle = signals.handle();
    std::thread::Builder::new()
        .name("godwit-early".into())
        .spawn(move || {
            for signal in signals.forever() {
                tracing::info!(signal, "asked to end while it starts");
                shutdown.begin();
            }
        })?;
    Ok(handle)
}

/// Returns at SIGTERM or SIGINT, or when a worker has failed.
fn wait_for_end(signals: &mut Signals, running: &Running, options: &Options) {
    for signal in signals.forever() {
        if signal != SIGHUP {
            tracing::info!(signal, "asked to end");
            return;
        }
        running.reload(load(options.clone()).and_then(Settings::of));
    }
}

/// Ends the process at the deadline, or at once at a second signal. What was acknowledged is stored either way.
fn watch_end(mut signals: Signals, deadline: Duration) {
    let handle = signals.handle();
    let timer = std::thread::spawn(move || {
        std::thread::sleep(deadline);
        tracing::error!("the deadline of the shutdown has passed");
        handle.close();
    });
    for signal in signals.forever() {
        if signal != SIGHUP {
            break;
        }
    }
    drop(timer);
    std::process::exit(i32::from(FAILED));
}

fn backup(dir: &Path, options: Options) -> anyhow::Result<()> {
    let config = load(options)?;
    let dir = std::path::absolute(dir).context("the current folder")?;
    let request = Backup { dir: dir.clone() };
    let Some(_) = call_admin::<_, Backup>(&config, "/backup", &request, BACKUP_TIME)? else {
        bail!(
            "nothing answers at the admin listener {}: backups are written by the running server",
            config.admin
        );
    };
    say(&format!("backup written to {}", dir.display()))
}

fn restore(from: &Path, options: Options) -> anyhow::Result<()> {
    let folder = DataFolder::at(&load(options)?.data_dir);
    folder.restore(from)?;
    say(&format!(
        "{} restored from {}",
        folder.path().display(),
        from.display()
    ))
}

fn add(username: String, admin: bool, password_stdin: bool, place: Place) -> anyhow::Result<()> {
    let none = <Flags as confique::Layer>::empty();
    let flags = Flags {
        data_dir: place.data_dir,
        admin: place.admin,
        ..none
    };
    let config = Config::load(flags, place.config.as_deref())?;
    let password = password(password_stdin)?;
    let new = NewUser {
        username,
        password,
        admin,
    };
    let added: Added = match call_admin(&config, "/users", &new, ADD_TIME)? {
        Some(added) => added,
        None if config.store == Engine::Cql => bail!(
            "nothing answers at the admin listener {}: in a cluster users are added through a running node",
            config.admin
        ),
        None => add_offline(config, &new)?,
    };
    let role = if added.admin { "administrator" } else { "user" };
    say(&format!("{role} {} added, id {}", added.username, added.user_id))
}

/// Serves the data folder to this call alone.
fn add_offline(mut config: Config, new: &NewUser) -> anyhow::Result<Added> {
    let listeners = Listeners::only_admin()?;
    let running = serve(config.clone(), Some(listeners), Shutdown::default())?;
    config.admin = running.addresses().admin.map_or(Listen::Off, Listen::At);
    let added = call_admin(&config, "/users", new, ADD_TIME);
    running.stop();
    added?.ok_or_else(|| anyhow!("the data folder could not be served"))
}

fn password(from_stdin: bool) -> anyhow::Result<String> {
    if !from_stdin {
        let first = rpassword::prompt_password("Password: ")
            .context("no password could be asked for; use --password-stdin")?;
        let again = rpassword::prompt_password("Once more: ").context("no password could be asked for")?;
        if first != again {
            bail!("the two passwords differ");
        }
        return Ok(first);
    }
    let mut line = String::new();
    io::Read::take(io::stdin().lock(), PASSWORD_LINE)
        .read_line(&mut line)
        .context("standard input")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn check(options: Options) -> anyhow::Result<()> {
    let config = load(options)?;
    logs::filter(&config.log)?;
    let settings = Settings::of(config)?;
    if let Some(tls) = settings.tls.clone() {
        tls::Certificates::open(tls)?;
    }
    for name in unknown_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())) {
        say_error(&format!(
            "there is no option for the variable {name} of the environment: it is ignored"
        ));
    }
    let options = &settings.options;
    say(&format!(
        "the configuration is good: data in {}, mqtt {}, http {}, admin {}, registration {:?}, {} workers",
        options.data_dir.display(),
        options.mqtt,
        options.http,
        options.admin,
        settings.registration,
        settings.workers
    ))
}

/// Asks the server that runs on the configured data folder. `None`: nothing listens there.
fn call_admin<Q: Serialize, A: DeserializeOwned>(
    config: &Config,
    path: &str,
    request: &Q,
    time: Duration,
) -> anyhow::Result<Option<A>> {
    let Some(address) = reached(config) else {
        return Ok(None);
    };
    let token = DataFolder::at(&config.data_dir).admin_token()?;
    let asked = agent(time)
        .post(format!("http://{address}{path}"))
        .header("Authorization", format!("Bearer {token}"))
        .send_json(request);
    answered(asked, address, config).map(Some)
}

/// The same for what only reads.
fn ask_admin<A: DeserializeOwned>(config: &Config, path: &str, time: Duration) -> anyhow::Result<Option<A>> {
    let Some(address) = reached(config) else {
        return Ok(None);
    };
    let asked = agent(time).get(format!("http://{address}{path}")).call();
    answered(asked, address, config).map(Some)
}

/// The same of what only who administers may read.
fn ask_admin_in_private<A: DeserializeOwned>(
    config: &Config,
    path: &str,
    time: Duration,
) -> anyhow::Result<Option<A>> {
    let Some(address) = reached(config) else {
        return Ok(None);
    };
    let token = DataFolder::at(&config.data_dir).admin_token()?;
    let asked = agent(time)
        .get(format!("http://{address}{path}"))
        .header("Authorization", format!("Bearer {token}"))
        .call();
    answered(asked, address, config).map(Some)
}

/// The admin listener, if anything listens there.
fn reached(config: &Config) -> Option<SocketAddr> {
    let address = config.admin.address()?;
    let reached = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5));
    reached.is_ok().then_some(address)
}

fn agent(time: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(time))
        .proxy(None)
        .build()
        .into()
}

fn answered<A: DeserializeOwned>(
    asked: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    address: SocketAddr,
    config: &Config,
) -> anyhow::Result<A> {
    let mut response = asked.with_context(|| format!("the admin listener {address}"))?;
    if response.status().is_success() {
        return response
            .body_mut()
            .read_json()
            .context("the admin listener's answer");
    }
    let status = response.status();
    match response.body_mut().read_json::<Failure>() {
        Ok(failure) if status.as_u16() == 401 => {
            bail!(
                "the server at {address} serves another data folder than {}: {}",
                config.data_dir.display(),
                failure.detail
            )
        }
        Ok(failure) => bail!("{}", failure.detail),
        Err(_) => bail!("the admin listener {address} answered {status}"),
    }
}
