//! The suite that every implementation of the contract passes: each promise of [`crate::Ledger`] is a named check.
//!
//! An implementation joins by a [`Subject`] and one line, `conformance::suite!(its_subject);`. Checks reopen the ledger
//! between steps, so what they see again was written. Nothing here knows how a ledger is made. Read `appends.rs` first.

pub mod appends;
pub mod build;
pub mod cancel;
pub mod cluster;
pub mod debts;
pub mod deliveries;
pub mod keeping;
pub mod operators;
pub mod outbox;
pub mod questions;
pub mod slots;

use std::sync::Arc;

use async_trait::async_trait;
use bellwire_schemas::ControllerId;

use crate::Ledger;

/// An implementation under test.
#[async_trait]
pub trait Subject: Send + Sync + Sized {
    /// Whether events leave in units larger than one, and come back beside their lane.
    const IN_UNITS: bool = false;

    /// Whether several controllers use it at the same time.
    const IS_SHARED: bool = false;

    /// A new, empty ledger.
    async fn new(lanes: u16) -> Self;

    /// The ledger as it is open now.
    fn ledger(&self) -> Arc<dyn Ledger>;

    /// Closes the ledger as the end of its process would, and opens it again.
    async fn reopen(&mut self);

    /// One more handle on the same ledger, as another controller has it; nothing where there is one controller only.
    async fn beside(&self) -> Option<Arc<dyn Ledger>> {
        None
    }

    /// Lets the lease of a controller end, as its silence does. False where no lease ever ends, because the ledger has one
    /// controller only.
    async fn expire(&mut self, _controller: ControllerId) -> bool {
        false
    }

    /// Ends the unit in which events leave, so that retention may remove those before apart from those after. Nothing to
    /// do where they leave one by one.
    async fn turn(&mut self) {}
}

/// One test per promise.
macro_rules! suite {
    ($subject:ty) => {
        $crate::conformance::suite!(@ $subject, cluster: tails_of_every_lane members_and_owners
            an_ended_lease_frees_the_lane leaving_gives_back);
        $crate::conformance::suite!(@ $subject, slots: what_is_wanted_is_granted_up_to_the_limit
            idle_slots_are_lent_and_shared_out slots_go_in_turns limits_have_nothing_to_do_with_each_other
            the_dead_have_no_slots leaving_frees_slots what_is_kept_is_not_taken_away slots_are_granted_as_by_the_model);
        $crate::conformance::suite!(@ $subject, appends: gapless_under_concurrency batches_span_lanes
            append_id_is_answered_once refusal_writes_nothing positions_compare_and_set
            dedup_within_its_window dedup_inside_a_batch positions_dedup_quarantine_together
            bytes_come_back_unchanged unknown_lanes_are_refused empty_batches_are_fine);
        $crate::conformance::suite!(@ $subject, deliveries: ownership_and_epochs cursor_and_exceptions
            flush_is_fenced flush_is_idempotent_by_version broken_flushes_write_nothing due_in_order
            log_of_an_event endings_remove_debts);
        $crate::conformance::suite!(@ $subject, debts: debts_have_keys debts_in_pages parked_debts_are_never_due
            debts_not_tried_are_no_retries owed_deliveries_by_selector);
        $crate::conformance::suite!(@ $subject, cancel: blocked_debts_are_redriven every_debt_is_given_up
            requests_wait_for_the_cursor cancelled_debts_stay_cancelled given_up_debts_are_owed_no_more
            requests_hold_nothing);
        $crate::conformance::suite!(@ $subject, outbox: outcomes_bring_forth_events what_was_seen_emits_nothing
            fenced_and_broken_flushes_emit_nothing emitted_events_have_dedup_keys lanes_that_emit_into_each_other);
        $crate::conformance::suite!(@ $subject, operators: bindings_start_where_they_say starts_beyond_the_end_are_refused
            bindings_revise_and_rest revisions_begin_at_the_tails pauses_are_kept redrive_and_discard redrive_after_retention
            replays_are_saved refusals_add_up);
        $crate::conformance::suite!(@ $subject, questions: reads_in_order_within_limits events_by_selector
            pages_are_stable_while_appending dead_letters_by_selector duplicates_and_quarantine
            totals_always_add_up arrivals_per_source);
        $crate::conformance::suite!(@ $subject, keeping: retention_keeps_what_is_needed
            places_are_never_used_twice retention_of_everything_else closed_means_closed);
    };
    (@ $subject:ty, $room:ident: $($check:ident)*) => {
        $(#[tokio::test]
        async fn $check() {
            let mut subject = <$subject as $crate::conformance::Subject>::new(2).await;
            $crate::conformance::$room::$check(&mut subject).await;
        })*
    };
}
pub(crate) use suite;
