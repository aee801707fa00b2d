//! Numbers and durations in queries, with stout's words for what is wrong with them.

use std::time::Duration;

/// Reads a number; the error is stout's.
pub fn parse_number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("Failed to convert '{text}' to number"))
}

/// Reads `15secs`, `10mins`, `1.5hrs`, ...; the error is stout's.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let digits = digits.ok_or_else(|| format!("Invalid duration '{text}'"))?;
    let (number, unit) = text.split_at(digits);
    let number: f64 = parse_number(number)?;
    let seconds = match unit {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "secs" => 1.0,
        "mins" => 60.0,
        "hrs" => 3600.0,
        "days" => 86_400.0,
        "weeks" => 604_800.0,
        _ => return Err(format!("Unknown duration unit '{unit}'")),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| format!("Invalid duration '{text}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("15secs"), Ok(Duration::from_secs(15)));
        assert_eq!(parse_duration("1.5mins"), Ok(Duration::from_secs(90)));
        assert_eq!(
            parse_duration("soon"),
            Err("Failed to convert '' to number".to_owned())
        );
        assert_eq!(
            parse_duration("5parsecs"),
            Err("Unknown duration unit 'parsecs'".to_owned())
        );
        assert_eq!(parse_duration("5"), Err("Invalid duration '5'".to_owned()));
    }
}
