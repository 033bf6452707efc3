//! Files the project writes are what the published schema says, and the schema refuses what it should.

use std::path::PathBuf;

use mpip_pktgen::result::{Axis, Chart, Curve, Event, Goal, ResultFile, Row, Scale, Series, Style};
use serde_json::{Value, json};

/// Checks a value against the part of JSON Schema 2020-12 that the schema file uses.
/// An unknown keyword is an error: a rule nobody checks is no rule.
fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let fail = |why: String| Err(format!("{at}: {why}"));
    let rules = schema.as_object().ok_or(format!("{at}: schema is not an object"))?;
    for (keyword, rule) in rules {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "properties" => {}
            "$ref" => {
                let path = rule.as_str().and_then(|r| r.strip_prefix('#')).unwrap_or("?");
                let target = root.pointer(path).ok_or(format!("{at}: no {path}"))?;
                check(root, target, value, at)?;
            }
            "type" => {
                let is = |name: &str| match name {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "number" => value.is_number(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    _ => false,
                };
                let matches = match rule {
                    Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
                    rule => rule.as_str().is_some_and(is),
                };
                if !matches {
                    return fail(format!("{value} is not of type {rule}"));
                }
            }
            "required" => {
                for name in rule.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    if value.is_object() && value.get(name).is_none() {
                        return fail(format!("{name} is missing"));
                    }
                }
            }
            "additionalProperties" => {
                assert_eq!(rule, &json!(false), "only false is in use");
                let known = rules.get("properties").and_then(Value::as_object);
                for name in value.as_object().into_iter().flatten().map(|(k, _)| k) {
                    if known.is_none_or(|k| !k.contains_key(name)) {
                        return fail(format!("{name} is not in the schema"));
                    }
                }
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{at}/{n}"))?;
                }
            }
            "oneOf" => {
                let fitting = rule
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|s| check(root, s, value, at).is_ok())
                    .count();
                if fitting != 1 {
                    return fail(format!("{fitting} of the alternatives fit"));
                }
            }
            "enum" => {
                if !rule.as_array().is_some_and(|a| a.contains(value)) {
                    return fail(format!("{value} is not one of {rule}"));
                }
            }
            "minItems" | "maxItems" => {
                let length = value.as_array().map_or(0, Vec::len) as u64;
                let limit = rule.as_u64().ok_or(format!("{at}: {keyword} is no number"))?;
                if (keyword == "minItems" && length < limit)
                    || (keyword == "maxItems" && length > limit)
                {
                    return fail(format!("{length} items, {keyword} is {limit}"));
                }
            }
            "minimum" => {
                if value.as_f64() < rule.as_f64() {
                    return fail(format!("{value} is below {rule}"));
                }
            }
            other => return fail(format!("the test does not know the keyword {other}")),
        }
    }
    for (name, rule) in rules.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if let Some(inner) = value.get(name) {
            check(root, rule, inner, &format!("{at}/{name}"))?;
        }
    }
    Ok(())
}

fn schema() -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schema/result.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("schema file")).expect("JSON")
}

fn full_result() -> ResultFile {
    let mut r = ResultFile::new("tcp-aggregate");
    r.rows.push(Row::new("a", "w", "mpip", "%", Some(Goal::at_least(93.0)), &[94.0, 95.0]));
    r.rows.push(Row::new("a", "w", "plain", "Mbit/s", None, &[38.0]));
    r.rows.push(Row::failed("b", "no gateway", "mpip", "ms", Goal::at_most(50.0)));
    r.rows.push(Row::new("c", "w", "mpip", "packets", Some(Goal::exactly(0.0)), &[0.0]));
    r.series.push(Series {
        scenario: "tcp-aggregate".into(),
        arm: "mpip".into(),
        name: "path 1".into(),
        unit: "Mbit/s".into(),
        t_s: vec![0.1, 0.2],
        value: vec![39.0, 40.0],
        events: vec![Event { t_s: 0.1, what: "down".into() }],
    });
    r.charts.push(Chart {
        title: "latency".into(),
        x: Axis::new("percentile", Scale::Quantile),
        y: Axis::new("latency, µs", Scale::Log),
        curves: vec![Curve {
            name: "at NDR".into(),
            style: Style::Dots,
            points: vec![[0.5, 10.0], [0.99, 80.0]],
        }],
    });
    r.details = Some(json!({"anything": [1, 2]}));
    r
}

#[test]
fn written_files_fit_the_schema_and_are_read_back() {
    let schema = schema();
    let dir = std::env::temp_dir().join(format!("mpip-schema-test-{}", std::process::id()));
    for (name, result) in [("full.json", full_result()), ("empty.json", ResultFile::new("nothing"))]
    {
        let path = dir.join(name);
        result.write(&path).expect("written");
        let text = std::fs::read_to_string(&path).expect("read");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        check(&schema, &schema, &value, "").expect(name);
        assert_eq!(ResultFile::read(&path).expect("shape"), result);
    }
    std::fs::remove_dir_all(&dir).expect("removed");
}

#[test]
fn the_schema_refuses_what_the_program_would_not_read() {
    let schema = schema();
    let good = serde_json::to_value(full_result()).expect("JSON");
    type Spoil = (&'static str, fn(&mut Value));
    let spoil: [Spoil; 8] = [
        ("no commit", |v| drop(v.as_object_mut().map(|o| o.remove("commit")))),
        ("unknown field", |v| v["rows"][0]["colour"] = json!("red")),
        ("goal as a number", |v| v["rows"][0]["goal"] = json!(93)),
        ("unknown comparison", |v| v["rows"][0]["goal"]["op"] = json!(">")),
        ("negative repeats", |v| v["rows"][0]["repeats"] = json!(-1)),
        ("three coordinates", |v| v["charts"][0]["curves"][0]["points"][0] = json!([1, 2, 3])),
        ("unknown scale", |v| v["charts"][0]["x"]["scale"] = json!("cubic")),
        ("text in a curve", |v| v["series"][0]["value"][0] = json!("39")),
    ];
    check(&schema, &schema, &good, "").expect("good file");
    for (name, spoil) in spoil {
        let mut bad = good.clone();
        spoil(&mut bad);
        assert!(check(&schema, &schema, &bad, "").is_err(), "schema takes: {name}");
        assert!(serde_json::from_value::<ResultFile>(bad).is_err(), "program takes: {name}");
    }
}
