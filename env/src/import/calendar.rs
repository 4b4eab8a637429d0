//! Dates and times as traces write them.

/// Seconds from the start of 1970 to a date and time such as `2024-11-15 16:57:50` of the same zone.
pub(super) fn seconds_since_1970(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(' ')?;
    let [year, month, day] = three_numbers(date, '-')?;
    let [hour, minute, second] = three_numbers(time, ':')?;
    let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    let first = days_since_1970(year, month, 1);
    let days = days_since_1970(next_year, next_month, 1) - first;
    let exists =
        (1..=12).contains(&month) && (1..=days).contains(&day) && hour < 24 && minute < 60 && second < 60;
    exists.then(|| (((first + day - 1) * 24 + hour) * 60 + minute) * 60 + second)
}

fn three_numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let number =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u16>().ok());
    let mut numbers = text.split(separator).map(|part| number(part).flatten().map(i64::from));
    let three = [numbers.next()??, numbers.next()??, numbers.next()??];
    numbers.next().is_none().then_some(three)
}

/// Days from the start of 1970 to a date of the Gregorian calendar: `days_from_civil` of Howard
/// Hinnant, "chrono-Compatible Low-Level Date Algorithms". Years begin in March, so that the leap
/// day comes last, and are counted in eras of 400, which all have 146,097 days.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::seconds_since_1970;

    #[test]
    fn dates_follow_the_gregorian_calendar() {
        for (text, seconds) in [
            ("1970-01-01 00:00:00", Some(0)),
            ("1969-12-31 23:59:59", Some(-1)),
            ("2000-02-29 00:00:00", Some(951_782_400)),
            ("2000-03-01 00:00:00", Some(951_868_800)),
            ("2024-11-15 16:57:50", Some(1_731_689_870)),
            ("2024-12-31 23:59:59", Some(1_735_689_599)),
            ("1900-02-29 00:00:00", None),
            ("2023-02-29 00:00:00", None),
            ("2024-00-10 00:00:00", None),
            ("2024-13-10 00:00:00", None),
            ("2024-04-31 00:00:00", None),
            ("2024-04-30 00:60:00", None),
            ("2024-04-30 00:00", None),
            ("2024-04-30 00:00:00:00", None),
            ("2024-04--1 00:00:00", None),
            ("99999-04-30 00:00:00", None),
            ("", None),
        ] {
            assert_eq!(seconds_since_1970(text), seconds, "{text}");
        }
    }
}
