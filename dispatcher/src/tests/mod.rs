//! The dispatcher against the in-memory ledger and scripted functions, with tokio's paused time and a clock that runs
//! along with it.

mod accounts;
mod batches;
mod conditions;
mod flow;
mod keys;
mod operators;
mod order;
mod sending;
mod several;
mod singles;
mod slots;
mod speed;
mod unrest;
mod waits;
mod world;
