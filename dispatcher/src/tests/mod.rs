//! The dispatcher against the in-memory ledger and scripted functions, with tokio's paused time and a clock that runs
//! along with it.

mod accounts;
mod conditions;
mod operators;
mod sending;
mod several;
mod speed;
mod unrest;
mod world;
