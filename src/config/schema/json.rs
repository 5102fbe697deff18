//! The schema for programs: `bonding options --json`.

use serde_json::{Value, json};

use super::{Kind, OptionSpec, SECTIONS};

/// The schema as JSON. `version` grows when the layout changes, not when options come or go.
pub fn options_json() -> Value {
    let sections: Vec<Value> = SECTIONS
        .iter()
        .map(|section| {
            json!({
                "type": section.kind,
                "single": section.single,
                "role": section.side.as_str(),
                "help": section.help,
                "options": section.options.iter().map(option_json).collect::<Vec<Value>>(),
            })
        })
        .collect();
    json!({ "version": 1, "sections": sections })
}

fn option_json(option: &OptionSpec) -> Value {
    let mut object = json!({
        "name": option.name,
        "type": option.kind.as_str(),
        "list": option.list,
        "required": option.required,
        "role": option.side.as_str(),
        "advanced": option.advanced,
        "expected": option.kind.expected(),
        "help": option.help,
    });
    let mut set = |key: &str, value: Value| {
        if let Some(object) = object.as_object_mut() {
            object.insert(key.into(), value);
        }
    };
    if !option.default.is_empty() {
        set("default", json!(option.default));
    }
    if !option.kind.unit().is_empty() {
        set("unit", json!(option.kind.unit()));
    }
    match option.kind {
        Kind::Integer { min, max, .. } => {
            set("min", json!(min));
            set("max", json!(max));
        }
        Kind::Port => {
            set("min", json!(1));
            set("max", json!(65_535));
        }
        Kind::Duration { min, max } => {
            set("min_ms", json!(u64::try_from(min.as_millis()).unwrap_or(u64::MAX)));
            set("max_ms", json!(u64::try_from(max.as_millis()).unwrap_or(u64::MAX)));
        }
        Kind::Choice(choices) => {
            let values: Vec<Value> =
                choices.iter().map(|choice| json!({ "value": choice.word, "help": choice.help })).collect();
            set("values", json!(values));
        }
        _ => {}
    }
    object
}
