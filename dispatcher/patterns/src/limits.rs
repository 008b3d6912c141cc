//! Every bound of this crate, in one place, with the reason for its figure.

/// Longest pattern text in bytes. AWS allows 4,096 characters; the corpus holds longer ones, hence the slack.
pub const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// Deepest nesting of a pattern or of JSON text, in levels. The same bound as `serde_json` uses, so that an event
/// which parses elsewhere parses here, and recursion stays within a small stack.
pub const MAX_DEPTH: usize = 128;

/// Most branches that the `$or`s of one pattern may multiply to. Our figure: event-ruler expands without a bound,
/// and ten `$or`s of ten alternatives would be ten thousand million branches.
pub const MAX_COMBINATIONS: usize = 1_000;

/// Most clauses that all branches of one pattern may hold together, so that a long pattern with many branches
/// stays within a few megabytes.
pub const MAX_EXPANDED_CLAUSES: usize = 200_000;

/// Most wildcard prefixes of one field that a single value may hold open at once; more is what AWS calls too
/// complex. AWS publishes the measure (event-ruler's complexity evaluator) but not its figure: the refusal in the
/// shared corpus measures 11, and ten is the largest figure that agrees with it.
pub const MAX_WILDCARD_COMPLEXITY: usize = 10;

/// Most comparisons spent on measuring the wildcards of one field; beyond it they count as too complex. A pattern of
/// the length that AWS allows stays far below; only lists of hundreds of long wildcards can spend it.
pub const MAX_COMPLEXITY_STEPS: usize = 20_000_000;

/// Most steps spent on keeping one match array-consistent. An ordinary event of a megabyte, matched by twenty clauses
/// that look into one long array, stays below it. Only events that reach one path by several dotted spellings, with
/// long arrays in each, can spend it; such an event does not match, and [`crate::Reason::TooTangled`] says so.
pub const MAX_STEPS: usize = 5_000_000;

/// Most choices of array elements kept at once, for the same reason; more than the elements of an event of a
/// megabyte, and some twenty megabytes of memory.
pub const MAX_STATES: usize = 200_000;

/// Most values of one path that an explanation quotes.
pub const MAX_QUOTED_VALUES: usize = 16;
