//! Faults that a test orders ahead of the calls that meet them.

use std::collections::{BTreeSet, VecDeque};

use bellwire_schemas::ControllerId;

use crate::Error;

/// Errors waiting for their call, first ordered first met.
#[derive(Default)]
pub(super) struct Faults {
    pub before_append: VecDeque<Error>,
    pub after_append: VecDeque<Error>,
    pub before_flush: VecDeque<Error>,
    pub after_flush: VecDeque<Error>,
    pub unheard: BTreeSet<ControllerId>,
    pub hangs: bool,
    pub full: bool,
    pub closed: bool,
}

impl Faults {
    pub fn check_open(&self) -> Result<(), Error> {
        if self.closed { Err(Error::Unavailable("it was closed".into())) } else { Ok(()) }
    }

    pub fn hear(&self, controller: ControllerId) -> Result<(), Error> {
        if self.unheard.contains(&controller) {
            return Err(Error::Unavailable("a test said so".into()));
        }
        Ok(())
    }

    pub fn take_before_append(&mut self) -> Result<(), Error> {
        if self.full {
            return Err(Error::Full("a test said so".into()));
        }
        take(&mut self.before_append)
    }

    pub fn take_after_append(&mut self) -> Result<(), Error> {
        take(&mut self.after_append)
    }

    pub fn take_before_flush(&mut self) -> Result<(), Error> {
        take(&mut self.before_flush)
    }

    pub fn take_after_flush(&mut self) -> Result<(), Error> {
        take(&mut self.after_flush)
    }
}

fn take(queue: &mut VecDeque<Error>) -> Result<(), Error> {
    queue.pop_front().map_or(Ok(()), Err)
}
