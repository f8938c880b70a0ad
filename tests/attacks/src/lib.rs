//! Attacks over the real `godwit` binary. Each runs beside bystanders, two users with stock clients, whose loss, order and
//! latency are judged, and under a bound of the node's memory; what it must do to the offender is part of the attack.

pub mod attacks;
pub mod bed;
pub mod bystander;
pub mod judge;
pub mod network;
pub mod peer;
pub mod report;
pub mod wire;
