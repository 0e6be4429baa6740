//! `garde`'s findings as field errors. It knows messages only; its hook for other languages gives each a code.

use std::{borrow::Cow, fmt::Display};

use axum::http::StatusCode;
use garde::{
    Report, Validate,
    i18n::{I18n, InvalidCreditCard, InvalidEmail, InvalidPhoneNumber, InvalidUrl, IpKind, with_i18n},
};

use super::push;
use crate::problem::{FieldError, Problem};

/// Between code and words of a coded message; no words of ours contain it.
const SEPARATOR: char = '\u{1f}';

/// What a `#[garde(custom(…))]` rule answers for a wrong value: a stable `code` and words for people.
pub fn invalid(code: &'static str, detail: impl Display) -> garde::Error {
    garde::Error::new(coded(code, detail))
}

/// 422 with every rule that `value` breaks. `root` is where the value stands: `#` for a body, `?` for a query.
pub(super) fn check<T: Validate<Context = ()>>(value: &T, root: &str) -> Result<(), Problem> {
    with_i18n(Codes, || value.validate()).map_err(|report| problem(&report, root))
}

fn problem(report: &Report, root: &str) -> Problem {
    let errors: Vec<FieldError> = report
        .iter()
        .map(|(path, error)| {
            let (code, words) = error.message().split_once(SEPARATOR).unwrap_or(("invalid", error.message()));
            FieldError::new(pointer(root, &path.to_string()), code.to_owned(), words)
        })
        .collect();
    let detail = match errors.as_slice() {
        [one] => format!("{}: {}.", one.pointer, one.detail),
        many => format!("{} values break a rule: see `errors`.", many.len()),
    };
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-value", detail).with_errors(errors)
}

/// `a.b[0]` as `#/a/b/0`, or `?a` in a query.
fn pointer(root: &str, path: &str) -> String {
    let mut pointer = root.to_owned();
    if root != "#" {
        // A field that is named by a word of Rust's.
        pointer.push_str(path.strip_prefix("r#").unwrap_or(path));
        return pointer;
    }
    for part in path.split(['.', '[', ']']).filter(|part| !part.is_empty()) {
        push(&mut pointer, part);
    }
    pointer
}

fn coded(code: &str, words: impl Display) -> Cow<'static, str> {
    format!("{code}{SEPARATOR}{words}").into()
}

/// garde's rules, each with its code.
struct Codes;

impl I18n for Codes {
    fn length_lower_than(&self, min: usize) -> Cow<'static, str> {
        coded("too_short", format_args!("must have a length of at least {min}"))
    }

    fn length_greater_than(&self, max: usize) -> Cow<'static, str> {
        coded("too_long", format_args!("must have a length of at most {max}"))
    }

    fn range_lower_than(&self, min: &dyn Display) -> Cow<'static, str> {
        coded("too_small", format_args!("must be at least {min}"))
    }

    fn range_greater_than(&self, max: &dyn Display) -> Cow<'static, str> {
        coded("too_large", format_args!("must be at most {max}"))
    }

    fn credit_card_invalid(&self, reason: InvalidCreditCard) -> Cow<'static, str> {
        coded("invalid_credit_card", format_args!("must be a credit card number: {reason}"))
    }

    fn pattern_no_match(&self, pattern: &dyn Display) -> Cow<'static, str> {
        coded("wrong_pattern", format_args!("must match the pattern {pattern}"))
    }

    fn contains_missing(&self, pattern: &dyn Display) -> Cow<'static, str> {
        coded("wrong_pattern", format_args!("must contain {pattern}"))
    }

    fn url_invalid(&self, reason: InvalidUrl) -> Cow<'static, str> {
        coded("invalid_url", format_args!("must be a URL: {reason}"))
    }

    fn prefix_missing(&self, pattern: &dyn Display) -> Cow<'static, str> {
        coded("wrong_pattern", format_args!("must begin with {pattern}"))
    }

    fn suffix_missing(&self, pattern: &dyn Display) -> Cow<'static, str> {
        coded("wrong_pattern", format_args!("must end with {pattern}"))
    }

    fn phone_number_invalid(&self, reason: InvalidPhoneNumber) -> Cow<'static, str> {
        coded("invalid_phone_number", format_args!("must be a phone number: {reason}"))
    }

    fn ip_invalid(&self, kind: IpKind) -> Cow<'static, str> {
        coded("invalid_ip", format_args!("must be an {kind} address"))
    }

    fn matches_field_mismatch(&self, field: &dyn Display) -> Cow<'static, str> {
        coded("mismatch", format_args!("must be the same as {field}"))
    }

    fn email_invalid(&self, reason: InvalidEmail) -> Cow<'static, str> {
        coded("invalid_email", format_args!("must be an e-mail address: {reason}"))
    }

    fn ascii_invalid(&self) -> Cow<'static, str> {
        coded("not_ascii", "must be ASCII")
    }

    fn alphanumeric_invalid(&self) -> Cow<'static, str> {
        coded("not_alphanumeric", "must be letters and digits")
    }

    fn required_not_set(&self) -> Cow<'static, str> {
        coded("required", "must be set")
    }
}
