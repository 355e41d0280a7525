//! `[limits]` in the settings file: every bound that a node's owner may change, by its name in [`Limits`].

use std::time::Duration;

use toml::de::DeValue;

use super::text;
use crate::limits::Limits;

/// How a kind of limit is written, and read.
trait Readable: Sized {
    fn read(value: &DeValue<'_>) -> Result<Self, String>;
}

/// A number, or a text of one with its unit behind it; `None`: neither.
fn number_and_unit(value: &DeValue<'_>) -> Option<(f64, String, bool)> {
    match value {
        DeValue::Integer(number) => Some((number.to_string().parse().ok()?, String::new(), true)),
        DeValue::Float(number) => Some((number.to_string().parse().ok()?, String::new(), false)),
        DeValue::String(text) => {
            let text = text.trim();
            let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
            let (number, unit) = text.split_at(end);
            Some((number.parse().ok()?, unit.trim().to_owned(), !number.contains('.')))
        }
        _ => None,
    }
}

impl Readable for Duration {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let wrong =
            || "a time belongs here: seconds as a number, or a text like \"500ms\", \"10s\", \"5min\"".to_owned();
        let (number, unit, _) = number_and_unit(value).ok_or_else(wrong)?;
        let seconds = match unit.as_str() {
            "" | "s" => number,
            "ms" => number / 1000.0,
            "min" => number * 60.0,
            "h" => number * 3600.0,
            _ => return Err(wrong()),
        };
        Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
    }
}

impl Readable for u64 {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let wrong = || "a whole number belongs here, or a text like \"64 MiB\"".to_owned();
        let (number, unit, whole) = number_and_unit(value).ok_or_else(wrong)?;
        let factor: u64 = match unit.as_str() {
            "" if whole => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(wrong()),
        };
        let bytes = number * factor as f64;
        // Above that a float skips whole numbers.
        if !(0.0..=9.0e15).contains(&bytes) {
            return Err("it must be 0 to 9000000000000000".to_owned());
        }
        Ok(bytes as u64)
    }
}

impl Readable for usize {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        usize::try_from(u64::read(value)?).map_err(|_| format!("it must be {} at most", usize::MAX))
    }
}

impl Readable for u32 {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        u32::try_from(u64::read(value)?).map_err(|_| format!("it must be {} at most", u32::MAX))
    }
}

/// Every limit there is. The compiler says when one is missing.
macro_rules! limits {
    ($($name:ident),* $(,)?) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        fn set(limits: &mut Limits, name: &str, value: &DeValue<'_>) -> Result<(), String> {
            let Limits { $($name),* } = limits;
            match name {
                $(stringify!($name) => *$name = Readable::read(value)?,)*
                unknown => return Err(match text::closest(unknown, NAMES) {
                    Some(near) => format!("unknown limit {unknown:?}; did you mean {near:?}?"),
                    None => format!("unknown limit {unknown:?}; the limits are {}", NAMES.join(", ")),
                }),
            }
            Ok(())
        }
    };
}

limits!(
    handshake_timeout,
    connect_timeout,
    heartbeat_interval,
    idle_timeout,
    unused_timeout,
    write_timeout,
    clock_skew,
    max_connections,
    max_half_open,
    max_connections_per_ip,
    handshakes_per_second_per_ip,
    handshake_burst_per_ip,
    message_timeout,
    bytes_per_second,
    byte_burst,
    outbox_bytes,
    outbox_messages,
    messages_per_second,
    message_burst,
    signatures_per_second,
    signature_burst,
    floods_per_second,
    flood_burst,
    max_records,
    max_records_per_peer,
    record_ttl,
    max_seen,
    max_subscriptions,
    max_calls,
    max_tasks,
    max_tasks_per_caller,
    max_remembered_tasks,
    max_answers,
    remembered_bytes,
    relay_bytes_per_second,
    relay_byte_burst,
    max_carried,
    memory_budget,
    query_wait,
    dht_wait,
    redial_min,
    redial_max,
    redial_soon,
    redial_soon_for,
    max_trackers,
    unacked_timeout,
    seal_key_lifetime,
    caller_timeout,
    drain_timeout,
);

/// Changes one limit to what the settings file says; a fault of the whole shows with it.
pub(super) fn change(limits: &mut Limits, name: &str, value: &DeValue<'_>) -> Result<(), String> {
    set(limits, name, value).map_err(|e| if NAMES.contains(&name) { format!("{name}: {e}") } else { e })
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::*;

    fn read(source: &str) -> Result<Limits, String> {
        let mut limits = Limits::default();
        for (name, value) in DeTable::parse(source).unwrap().get_ref().iter() {
            change(&mut limits, name.get_ref(), value.get_ref())?;
        }
        Ok(limits)
    }

    #[test]
    fn every_limit_can_be_set() {
        let times = ["1", "1.0", "'1s'", "'1000ms'", "'1 s'"];
        for time in times {
            assert_eq!(read(&format!("idle_timeout = {time}")).unwrap().idle_timeout, Duration::from_secs(1), "{time}");
        }
        let limits =
            read("redial_max = '2min'\nmemory_budget = '64 MiB'\nmax_tasks = 3\nbyte_burst = '0.5GiB'").unwrap();
        assert_eq!((limits.redial_max, limits.memory_budget), (Duration::from_secs(120), 64 << 20));
        assert_eq!((limits.max_tasks, limits.byte_burst), (3, 1 << 29));
        for name in NAMES {
            assert_ne!(read(&format!("{name} = 7")).unwrap(), Limits::default(), "{name} is set");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (source, said) in [
            ("max_half_opem = 1", "unknown limit \"max_half_opem\"; did you mean \"max_half_open\"?"),
            ("qqqqqqqqqqq = 1", "the limits are handshake_timeout, "),
            ("max_tasks = -1", "max_tasks: it must be 0 to"),
            ("max_tasks = 1.5", "max_tasks: a whole number belongs here"),
            ("max_tasks = 'many'", "max_tasks: a whole number belongs here"),
            ("max_tasks = true", "max_tasks: a whole number belongs here"),
            ("max_tasks = [1]", "max_tasks: a whole number belongs here"),
            ("max_tasks = '1 MB'", "max_tasks: a whole number belongs here"),
            ("byte_burst = '4 GiB'", "byte_burst: it must be 4294967295 at most"),
            ("idle_timeout = '1 week'", "idle_timeout: a time belongs here"),
            ("idle_timeout = -1", "idle_timeout: a time belongs here"),
            ("idle_timeout = false", "idle_timeout: a time belongs here"),
        ] {
            let error = read(source).unwrap_err();
            assert!(error.contains(said), "{source}: {error}");
        }
    }
}
