//! Assembly of one kernel, out of that of a unit.

/// The module `assembly` with its entry point `entry` and without all others, so that a driver does not compile them as well; with what
/// stands outside of entry points, which they may use. `None` where there is no such entry point.
///
/// NVRTC writes each entry point, `.visible .entry name(…)`, and each function from its first line on, which is not indented, to a closing
/// brace in a line of its own.
pub fn only(assembly: &str, entry: &str) -> Option<String> {
    let mut out = String::new();
    // Whether the line is inside an entry point, and whether that is the one.
    let (mut inside, mut wanted, mut found) = (false, true, false);
    for line in assembly.split_inclusive('\n') {
        if !inside && let Some(name) = entry_name(line) {
            (inside, wanted) = (true, name == entry);
            found |= wanted;
        }
        if wanted {
            out += line;
        }
        if inside && line.trim_end() == "}" && line.starts_with('}') {
            (inside, wanted) = (false, true);
        }
    }
    found.then_some(out)
}

fn entry_name(line: &str) -> Option<&str> {
    let rest = line.strip_prefix(".visible ").unwrap_or(line).strip_prefix(".entry ")?;
    rest.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).next()
}

#[cfg(test)]
mod tests {
    use super::super::{ImageKind, images};
    use super::only;

    const TWO: &str = "//\n.version 8.8\n.target sm_75\n.global .u32 C = 4;\n\n.visible .entry first(\n\t.param .b8 p[8]\n)\n\
                       .maxntid 128, 1, 1\n{\n\t{\n\tret;\n\t}\n}\n\t// .globl\tsecond\n.visible .entry second(\n)\n{\n\tret;\n}\n\0";

    #[test]
    fn one_entry_is_left_with_what_it_may_use() {
        for (name, other, body) in [("first", "second", ".param .b8"), ("second", "first", "\tret;")] {
            let text = only(TWO, name).unwrap();
            assert!(text.contains(&format!(".entry {name}(")) && text.contains(body), "{text}");
            assert!(!text.contains(&format!(".entry {other}(")), "{text}");
            assert!(text.contains(".target sm_75\n.global .u32 C = 4;") && text.ends_with('\0'), "{text}");
            assert_eq!(text.matches('{').count(), text.matches('}').count());
        }
        assert_eq!(only(TWO, "firs"), None);
        assert_eq!(only("", "first"), None);
    }

    #[test]
    fn every_entry_of_the_embedded_assembly_stands_alone() {
        for image in images().iter().filter(|image| image.kind() == ImageKind::Ptx) {
            let all = std::str::from_utf8(image.bytes().unwrap()).unwrap();
            for entry in image.entries() {
                let text = only(all, &entry.name).unwrap();
                assert_eq!(text.matches(".entry ").count(), 1, "{} of {}", entry.name, image.unit());
                assert_eq!(text.matches('{').count(), text.matches('}').count(), "{}", entry.name);
                assert!(text.ends_with('\0'), "the driver looks for the end");
            }
        }
    }
}
