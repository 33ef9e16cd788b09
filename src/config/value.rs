//! What values may look like: from the file's words to plain data, each with a message that says what is wanted.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::reader::{Reader, Value, kind};
use super::share::{self, Share};
use super::{duration, inherited, size};

/// An integer within a range.
pub(super) fn integer(range: RangeInclusive<u32>) -> impl Fn(&Value<'_>, &mut Reader<'_>) -> Option<u32> {
    move |value, reader| {
        let wanted = || format!("expected an integer from {} to {}", range.start(), range.end());
        let DeValue::Integer(integer) = value.get_ref() else {
            reader.error(value.span(), format!("{}, found {}", wanted(), kind(value)), None);
            return None;
        };
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|n| range.contains(n));
        if number.is_none() {
            reader.error(value.span(), format!("{}, found {integer}", wanted()), None);
        }
        number
    }
}

/// `true` or `false`.
pub(super) fn boolean(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<bool> {
    let boolean = value.get_ref().as_bool();
    if boolean.is_none() {
        reader.error(value.span(), format!("expected true or false, found {}", kind(value)), None);
    }
    boolean
}

/// A number of workers, or a string with a percentage.
pub(super) fn share(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Share> {
    match value.get_ref() {
        DeValue::Integer(_) => integer(1..=4096)(value, reader).map(Share::Workers),
        DeValue::String(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => text(share::parse)(value, reader),
    }
}

/// A string that `parse` understands.
pub(super) fn text<T, E: ToString>(
    parse: impl Fn(&str) -> Result<T, E>,
) -> impl Fn(&Value<'_>, &mut Reader<'_>) -> Option<T> {
    move |value, reader| {
        let Some(text) = value.get_ref().as_str() else {
            reader.error(value.span(), format!("expected a string, found {}", kind(value)), None);
            return None;
        };
        parse(text).map_err(|error| reader.error(value.span(), error.to_string(), None)).ok()
    }
}

/// A list of which every element is wanted: all bad ones are reported.
pub(super) fn list<T>(
    element: impl Fn(&Value<'_>, &mut Reader<'_>) -> Option<T>,
) -> impl Fn(&Value<'_>, &mut Reader<'_>) -> Option<Vec<T>> {
    move |value, reader| {
        let Some(array) = value.get_ref().as_array() else {
            let help = value.get_ref().as_str().map(|text| format!("write {}", as_list(text)));
            reader.error(value.span(), format!("expected a list, found {}", kind(value)), help);
            return None;
        };
        let elements: Vec<_> = array.iter().map(|value| element(value, reader)).collect();
        elements.into_iter().collect()
    }
}

/// The words of a string as a TOML list, for a help.
fn as_list(text: &str) -> String {
    let words: Vec<String> = text.split_whitespace().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(", "))
}

/// A time as systemd writes it, or an integer of seconds; `check` may refuse it.
pub(super) fn time(
    check: impl Fn(Duration) -> Result<Duration, String>,
) -> impl Fn(&Value<'_>, &mut Reader<'_>) -> Option<Duration> {
    move |value, reader| {
        let written = match value.get_ref() {
            DeValue::String(text) => text.as_ref().to_owned(),
            DeValue::Integer(integer) => integer.to_string(),
            DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                let help = "write \"30s\", \"5min\", \"500ms\" or a number of seconds".to_owned();
                reader.error(value.span(), format!("expected a time, found {}", kind(value)), Some(help));
                return None;
            }
        };
        duration::parse(&written).and_then(&check).map_err(|error| reader.error(value.span(), error, None)).ok()
    }
}

/// A size of memory as systemd writes it, or an integer of bytes.
pub(super) fn memory(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<u64> {
    let written = match value.get_ref() {
        DeValue::String(text) => text.as_ref().to_owned(),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            let help = "write \"256M\", \"1G\" or a number of bytes".to_owned();
            reader.error(value.span(), format!("expected a size, found {}", kind(value)), Some(help));
            return None;
        }
    };
    size::parse(&written).map_err(|error| reader.error(value.span(), error, None)).ok()
}

/// Permissions: an octal string ("0660") or an octal integer (0o660).
pub(super) fn permissions(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<u32> {
    let digits = match value.get_ref() {
        DeValue::String(text) => Some(text.as_ref().strip_prefix("0o").unwrap_or(text.as_ref())),
        DeValue::Integer(integer) if integer.radix() == 8 => Some(integer.as_str()),
        // 660 without a mark would be taken for a decimal number, and is meant as an octal one.
        DeValue::Integer(integer) => {
            let help = format!("write \"{:0>4}\"", integer.as_str());
            reader.error(value.span(), "permissions are octal, found a decimal integer", Some(help));
            return None;
        }
        DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    };
    let octal = digits.filter(|digits| digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit)));
    let mode = octal.and_then(|digits| u32::from_str_radix(digits, 8).ok()).filter(|mode| *mode <= 0o777);
    if mode.is_none() {
        let help = "write \"0660\": the socket's user and group may connect; \"0666\": everybody".to_owned();
        reader.error(value.span(), "expected octal permissions from \"0000\" to \"0777\"", Some(help));
    }
    mode
}

/// A table of variables.
pub(super) fn variables(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<BTreeMap<String, String>> {
    let Some(table) = value.get_ref().as_table() else {
        let help = Some("write [environment] on a line of its own, above lines of KEY = \"value\"".to_owned());
        reader.error(value.span(), format!("`environment` is a section, found {}", kind(value)), help);
        return None;
    };
    let mut variables = BTreeMap::new();
    for (name, value) in table {
        let checked = inherited::check_name(name.get_ref());
        if let Err(error) = checked {
            reader.error(name.span(), error, None);
        }
        if value.get_ref().as_str().is_none() {
            let help = "write NAME = \"value\"".to_owned();
            reader.error(value.span(), format!("expected a string, found {}", kind(value)), Some(help));
        } else if let Some(text) = text(|text| inherited::check_value(text).map(|()| text.to_owned()))(value, reader) {
            variables.insert(name.get_ref().as_ref().to_owned(), text);
        }
    }
    Some(variables)
}
