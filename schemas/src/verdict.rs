//! How a case of a public corpus went: what each room's conformance judge answers.

use serde_json::Value;

/// What came of one case.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Our answer is the expected one.
    Passed,
    /// It differs, or the case cannot be read.
    Failed {
        /// What the case expects.
        expected: Value,
        /// What we say.
        actual: Value,
    },
    /// Not judged.
    Skipped {
        /// Why, in words that are the same for all such cases.
        reason: String,
    },
}
