//! The task that runs a node's starts on a store: carries out what [`Member`] says and tells it what came of it. When a
//! start ends without having been asked to, it makes the next one.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use godwit_store::View;
use godwit_store::coordination::{Asked, Changed, Coordination, Nonce, StartId, StartRow, StoredView};
use tokio::sync::watch;

use super::Millis;
use super::body::About;
use super::events::{Action, Event, Me, Standing, Why};
use super::holdings::Holdings;
use super::member::Member;

/// How far a start's timestamps may run ahead of its last stored heartbeat: more than a lease and a margin, so that a
/// clock that runs true never meets the bound.
const STAMPS_AHEAD_MICROS: i64 = 10_000_000;

/// Where the driver gets its time.
pub trait Clock: Send + Sync {
    /// CLOCK_BOOTTIME in milliseconds: goes on while the process is stopped.
    fn now(&self) -> Millis;

    /// Milliseconds since 1970 by the machine's calendar, for the others to compare with theirs; 0: not told.
    fn unix_ms(&self) -> u64 {
        0
    }

    /// Ends at `at`, never early.
    fn sleep_until(&self, at: Millis) -> Asked<'_, ()>;
}

/// What lives on this node's shards.
pub trait Homes: Send + Sync {
    /// Ends when nobody answers for these slots any more. `view` takes them.
    fn let_go(&self, view: View, slots: Vec<u16>) -> Asked<'_, ()>;

    /// These slots are this node's: what is written for them carries `view`.
    fn take_up(&self, view: View, slots: Vec<u16>);

    /// Members or owners are others now.
    fn moved(&self, standing: Arc<Standing>);

    /// It is stored that this start acts by `view`, or a later one, and has let go of all that it takes: others may be told, so
    /// that they need not find out.
    fn confirmed(&self, view: View) {
        let _ = view;
    }
}

/// What a driver needs to know.
pub struct Settings {
    /// What the node says about itself.
    pub about: About,
    /// What it holds, for its threads.
    pub holdings: Arc<Holdings>,
    /// Makes an id and a seed for each start, random and never twice the same.
    pub fresh: Box<dyn FnMut() -> (StartId, u64) + Send>,
    /// Bugs of every start.
    #[cfg(feature = "planted-bugs")]
    pub bugs: super::Bugs,
}

impl Settings {
    /// Without any bug, whatever is built in.
    pub fn new(
        about: About,
        holdings: Arc<Holdings>,
        fresh: Box<dyn FnMut() -> (StartId, u64) + Send>,
    ) -> Self {
        Self {
            about,
            holdings,
            fresh,
            #[cfg(feature = "planted-bugs")]
            bugs: super::Bugs::default(),
        }
    }
}

/// Runs the node's starts, one after the other, until `drain` says `true` (or its sender is gone) and the node was taken
/// out. Dropped at any time it is as if the process died.
pub async fn drive(
    mut settings: Settings,
    coordination: &dyn Coordination,
    clock: &dyn Clock,
    homes: &dyn Homes,
    mut drain: watch::Receiver<bool>,
) {
    loop {
        let (start, random) = (settings.fresh)();
        let me = Me {
            start,
            about: settings.about.clone(),
        };
        let holdings = settings.holdings.clone();
        let member = Member::new(me, holdings.clone(), random, clock.now());
        #[cfg(feature = "planted-bugs")]
        let member = {
            let mut member = member;
            member.plant(settings.bugs);
            member
        };
        let why = run(member, &holdings, coordination, clock, homes, &mut drain).await;
        tracing::info!(%start, ?why, "a start of this node is over");
        if why == Why::Left {
            return;
        }
    }
}

async fn run(
    mut member: Member,
    holdings: &Holdings,
    coordination: &dyn Coordination,
    clock: &dyn Clock,
    homes: &dyn Homes,
    drain: &mut watch::Receiver<bool>,
) -> Why {
    let mut calls = Calls::default();
    let mut drained = false;
    let mut told: View = 0;
    member.handle(clock.now(), Event::Tick);
    loop {
        while let Some(action) = member.next_action() {
            match action {
                Action::TakeUp { view, slots } => homes.take_up(view, slots),
                Action::Moved(standing) => homes.moved(standing),
                Action::RaiseStamps(floor) => coordination.raise_stamps(floor),
                Action::Ended(why) => return why,
                Action::LetGo { view, slots } => {
                    let done = homes.let_go(view, slots);
                    calls.let_go.push_back((view, done));
                }
                Action::WriteStart(row) => calls.write(row, coordination, clock.unix_ms()),
                request => calls.begin(request, coordination),
            }
        }
        let event = {
            let mut tick = pin!(clock.sleep_until(member.next_tick()));
            let mut hinted = pin!(holdings.until_hinted());
            let mut asked = pin!(async {
                // A sender that is gone asks to leave too: nobody could any more.
                let _ = drain.wait_for(|drain| *drain).await.map(|_| ());
            });
            poll_fn(|cx| {
                if let Poll::Ready(event) = calls.poll(cx) {
                    return Poll::Ready(event);
                }
                if !drained && asked.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Drain);
                }
                if hinted.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Hint(holdings.hinted()));
                }
                tick.as_mut().poll(cx).map(|()| Event::Tick)
            })
            .await
        };
        drained |= matches!(event, Event::Drain);
        if matches!(event, Event::Wrote(true)) && calls.confirms > told {
            told = calls.confirms;
            homes.confirmed(told);
        }
        member.handle(clock.now(), event);
    }
}

/// Number and nonce of the view, if there is one.
type Shown = Option<(View, Nonce)>;

/// Requests under way: one of a kind, as the member asks for them.
#[derive(Default)]
struct Calls<'a> {
    write: Option<Asked<'a, bool>>,
    /// The view that it confirms.
    confirms: View,
    starts: Option<Asked<'a, Option<Vec<StartRow>>>>,
    shown: Option<Asked<'a, Option<Shown>>>,
    view: Option<Asked<'a, Option<Option<StoredView>>>>,
    change: Option<Asked<'a, Changed>>,
    /// Answered to nobody.
    deletes: Vec<Asked<'a, ()>>,
    /// In the order of their views.
    let_go: VecDeque<(View, Asked<'a, ()>)>,
}

impl<'a> Calls<'a> {
    fn write(&mut self, mut row: StartRow, coordination: &'a dyn Coordination, unix_ms: u64) {
        row.stamp = coordination.stamp() + STAMPS_AHEAD_MICROS;
        if unix_ms > 0 {
            row.about = super::body::with_clock(&row.about, unix_ms);
        }
        self.confirms = row.confirmed;
        self.write = Some(Box::pin(
            async move { coordination.write_start(row).await.is_ok() },
        ));
    }

    fn begin(&mut self, request: Action, coordination: &'a dyn Coordination) {
        match request {
            Action::ReadStarts => {
                self.starts = Some(Box::pin(async { coordination.read_starts().await.ok() }));
            }
            Action::ShowView => self.shown = Some(Box::pin(async { coordination.shown_view().await.ok() })),
            Action::ReadView => self.view = Some(Box::pin(async { coordination.read_view().await.ok() })),
            Action::ChangeView { expected, new } => {
                self.change = Some(coordination.change_view(expected, new));
            }
            Action::DeleteStart { start, beat } => self.deletes.push(Box::pin(async move {
                // A row that stays is found again.
                let _ = coordination.delete_start(start, beat).await;
            })),
            Action::WriteStart(_)
            | Action::LetGo { .. }
            | Action::TakeUp { .. }
            | Action::Moved(_)
            | Action::RaiseStamps(_)
            | Action::Ended(_) => {}
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some((view, done)) = self.let_go.front_mut()
            && done.as_mut().poll(cx).is_ready()
        {
            let view = *view;
            self.let_go.pop_front();
            return Poll::Ready(Event::LetGo(view));
        }
        if let Some(stored) = ready(&mut self.write, cx) {
            return Poll::Ready(Event::Wrote(stored));
        }
        if let Some(shown) = ready(&mut self.shown, cx) {
            return Poll::Ready(Event::Shown(shown));
        }
        if let Some(view) = ready(&mut self.view, cx) {
            return Poll::Ready(Event::View(view));
        }
        if let Some(changed) = ready(&mut self.change, cx) {
            return Poll::Ready(Event::Changed(changed));
        }
        if let Some(rows) = ready(&mut self.starts, cx) {
            return Poll::Ready(Event::Starts(rows));
        }
        self.deletes
            .retain_mut(|delete| delete.as_mut().poll(cx).is_pending());
        Poll::Pending
    }
}

fn ready<T>(call: &mut Option<Asked<'_, T>>, cx: &mut Context<'_>) -> Option<T> {
    let polled = Pin::as_mut(call.as_mut()?).poll(cx);
    match polled {
        Poll::Ready(value) => {
            *call = None;
            Some(value)
        }
        Poll::Pending => None,
    }
}
