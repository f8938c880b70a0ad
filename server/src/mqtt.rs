//! stand-in
use crate::StartError;
use crate::node::Node;
use godwit_cluster::*;
use godwit_history_api::MqttUpgrade;
use std::net::TcpListener;
use std::sync::Arc;
pub(crate) fn open(
    _: &Router,
    _: &Node,
    _: Option<TcpListener>,
    _: Option<TcpListener>,
) -> Result<(), StartError> {
    Ok(())
}
pub(crate) fn upgrade(_: &Router) -> MqttUpgrade {
    Arc::new(|_, _| {})
}
pub(crate) fn config(_: &Node, _: u64) -> u8 {
    0
}
#[derive(Clone, Default)]
pub(crate) struct Metrics;
impl Metrics {
    pub(crate) fn register(&self, _: &mut prometheus_client::registry::Registry) {}
}
pub(crate) struct R;
pub(crate) fn role(_: &u8, _: &Metrics) -> R {
    R
}
impl Role for R {
    fn apply(
        &mut self,
        cx: &mut Cx<'_>,
        _: &godwit_wire::ids::Key,
        _: godwit_wire::command::Command,
        reply: Reply,
    ) -> Flow {
        cx.answer(reply, godwit_wire::command::Answer::Done);
        Flow::Taken
    }
    fn loaded(
        &mut self,
        _: &mut Cx<'_>,
        _: &godwit_wire::ids::Key,
        _: Vec<godwit_store::ReadAnswer>,
    ) -> Loading {
        Loading::Ready
    }
    fn load_failed(&mut self, _: &mut Cx<'_>, _: &godwit_wire::ids::Key) {}
    fn stored(&mut self, _: &mut Cx<'_>, _: u64, _: godwit_store::Outcome) {}
    fn answered(&mut self, _: &mut Cx<'_>, _: u64, _: godwit_wire::command::Answer) {}
    fn taken_up(&mut self, _: &mut Cx<'_>, _: &[u16], _: u64) {}
    fn given_up(&mut self, _: &mut Cx<'_>, _: &[u16], _: u64) {}
}
