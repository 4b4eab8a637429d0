//! Quantities as Kubernetes writes them: `100m`, `1.5Gi`, `2e3`.

/// A quantity in thousandths, rounded up; what is too large is cut off at the largest number.
///
/// # Errors
/// When it is none, with what is wrong.
pub fn millis(text: &str) -> Result<i64, String> {
    thousandths(text).map(clamped)
}

/// A quantity in whole units, rounded up; what is too large is cut off at the largest number.
///
/// # Errors
/// When it is none, with what is wrong.
pub fn whole(text: &str) -> Result<i64, String> {
    thousandths(text).map(|value| clamped(value.div_euclid(1000) + i128::from(value.rem_euclid(1000) > 0)))
}

fn clamped(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// Digits that are told apart; more than any quantity of Kubernetes has.
const DIGITS: usize = 36;
/// Beyond this many thousandths everything is as large as can be.
const LARGEST: i128 = i128::MAX / 2;

fn thousandths(text: &str) -> Result<i128, String> {
    let wrong = || {
        let shown: String = text.chars().take(60).collect();
        format!("{shown:?} is no quantity, want one like 100m, 1.5Gi or 2e3")
    };
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (before, after) = number.split_once('.').unwrap_or((number, ""));
    if before.len() + after.len() == 0 || after.contains('.') {
        return Err(wrong());
    }
    let (binary, decimal) = scale(suffix).ok_or_else(wrong)?;
    let digits = format!("{before}{after}");
    let digits = digits.trim_start_matches('0');
    let kept = &digits[..digits.len().min(DIGITS)];
    let mantissa: i128 = if kept.is_empty() { 0 } else { kept.parse().map_err(|_| wrong())? };
    let dropped = (digits.len() - kept.len()) as i32;
    let exponent = decimal.saturating_add(3).saturating_add(dropped).saturating_sub(after.len() as i32);
    let lost = digits[kept.len()..].bytes().any(|digit| digit != b'0');
    let value = scaled(mantissa, binary, exponent, lost);
    Ok(if negative { -value } else { value })
}

/// The power of two and the power of ten that a suffix stands for.
fn scale(suffix: &str) -> Option<(u32, i32)> {
    let plain = match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
                return None;
            }
            let largest = if exponent.starts_with('-') { -1000 } else { 1000 };
            (0, exponent.parse().unwrap_or(largest).clamp(-1000, 1000))
        }
    };
    Some(plain)
}

/// `mantissa · 2^binary · 10^exponent`, rounded up; `lost` if digits below the last were left out.
fn scaled(mantissa: i128, binary: u32, exponent: i32, lost: bool) -> i128 {
    if mantissa == 0 {
        return i128::from(lost);
    }
    let power = |exponent: u32| 10_i128.checked_pow(exponent);
    let Some(large) = mantissa.checked_mul(1_i128 << binary) else {
        // Divide first: a number this large loses nothing that counts.
        let divisor = power(exponent.min(0).unsigned_abs()).unwrap_or(i128::MAX);
        return (mantissa / divisor)
            .checked_mul(1_i128 << binary)
            .map_or(LARGEST, |value| value.min(LARGEST));
    };
    let value = match power(exponent.unsigned_abs()) {
        Some(factor) if exponent >= 0 => large.checked_mul(factor).unwrap_or(LARGEST),
        None if exponent >= 0 => LARGEST,
        Some(divisor) => large / divisor + i128::from(large % divisor > 0 || lost),
        None => 1,
    };
    value.min(LARGEST)
}

#[cfg(test)]
mod tests {
    use super::{millis, whole};

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, thousandths, units) in [
            ("0", 0, 0),
            ("100m", 100, 1),
            ("1", 1000, 1),
            ("1.5", 1500, 2),
            (".5", 500, 1),
            ("5.", 5000, 5),
            ("+2", 2000, 2),
            ("0.1m", 1, 1),
            ("1u", 1, 1),
            ("1n", 1, 1),
            ("2e3", 2_000_000, 2000),
            ("2E3", 2_000_000, 2000),
            ("25e-1", 2500, 3),
            ("1E", i64::MAX, 1_000_000_000_000_000_000),
            ("1k", 1_000_000, 1000),
            ("64Mi", 67_108_864_000, 67_108_864),
            ("1.5Gi", 1_610_612_736_000, 1_610_612_736),
            ("100Gi", 107_374_182_400_000, 107_374_182_400),
            ("-1500m", -1500, -1),
            ("8Ei", i64::MAX, i64::MAX),
            ("99999999999999999999999999999999999999999999", i64::MAX, i64::MAX),
            ("0.00000000000000000000000000000000000000000000000001", 1, 1),
            ("1e99999999999", i64::MAX, i64::MAX),
            ("1e-99999999999", 1, 1),
        ] {
            assert_eq!(millis(text), Ok(thousandths), "{text} in thousandths");
            assert_eq!(whole(text), Ok(units), "{text} in units");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in
            ["", "-", ".", "m", "1.2.3", "1x", "1 Gi", "1gi", "e3", "1e", "1e+", "0x10", "１", "--1", "1Kim"]
        {
            let error = millis(text).unwrap_err();
            assert!(error.contains("is no quantity, want one like"), "{text}: {error}");
        }
    }
}
