//! What can be wrong with a schedule expression, said so that the writer can mend it.

/// Longest expression accepted, in characters; the bound of `ScheduleExpression` in EventBridge `PutRule`.
pub const MAX_EXPRESSION_CHARS: usize = 256;

/// Says why a schedule expression or a time zone is refused and what is allowed instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The expression has more than [`MAX_EXPRESSION_CHARS`] characters.
    #[error("schedule has {length} characters: at most {MAX_EXPRESSION_CHARS} are allowed")]
    TooLong {
        /// Characters found.
        length: usize,
    },
    /// The text is none of the known forms.
    #[error(
        "`{text}` is not a schedule: use rate(5 minutes), cron(0 7 ? * MON-FRI *), at(2030-01-31T07:00:00), \
         or plain cron such as `0 7 * * 1-5`"
    )]
    UnknownForm {
        /// The text as written.
        text: String,
    },
    /// A form is right but for blanks around it.
    #[error("`{text}`: remove the blanks before or after the expression")]
    Blanks {
        /// The text as written.
        text: String,
    },
    /// The number of cron fields is wrong.
    #[error("cron expression has {found} fields: {expected}")]
    FieldCount {
        /// Fields found.
        found: usize,
        /// The fields that this form has.
        expected: &'static str,
    },
    /// One cron field is wrong.
    #[error("{field} `{text}`: {problem}; allowed: {allowed}")]
    Field {
        /// Name of the field, for example `day-of-month`.
        field: &'static str,
        /// The part of the field that is wrong.
        text: String,
        /// What is wrong with it.
        problem: String,
        /// What the field may hold.
        allowed: String,
    },
    /// The AWS dialect wants exactly one of the two day fields to be `?`.
    #[error("day-of-month `{day_of_month}` and day-of-week `{day_of_week}`: exactly one of them must be `?`")]
    QuestionMark {
        /// The day-of-month field.
        day_of_month: String,
        /// The day-of-week field.
        day_of_week: String,
    },
    /// A `rate(…)` is wrong.
    #[error("`{text}`: {problem}")]
    Rate {
        /// The expression as written.
        text: String,
        /// What is wrong and what to write.
        problem: String,
    },
    /// An `at(…)` is wrong.
    #[error(
        "`{text}`: use at(yyyy-mm-ddThh:mm:ss) with a date and time that exist; the zone belongs in `timezone`"
    )]
    At {
        /// The expression as written.
        text: String,
    },
    /// The time zone is not in the bundled IANA database.
    #[error("time zone `{name}` is unknown: use an IANA name such as UTC or Europe/Berlin")]
    UnknownZone {
        /// The name as written.
        name: String,
    },
}
