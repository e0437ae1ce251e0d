//! Which module of a `state_dict` belongs to which layers: by a map, or by order, names and shapes.

use std::path::Path;

use super::format_error;
use super::modules::Module;
use super::slots::{Assigned, Slot};
use crate::error::{Error, Result};

/// A normalization that a layer before it takes into its weights, since the model has none there.
pub(super) struct Folded {
    /// Number of the layer.
    pub slot: usize,
    /// Number of the normalization.
    pub module: usize,
}

/// Modules and layers that belong together.
#[derive(Default)]
pub(super) struct Fit {
    pub assigned: Vec<Assigned>,
    pub folded: Vec<Folded>,
    /// Prefix and layer, in the order of the model.
    pub map: Vec<(String, String)>,
}

/// The map that is given.
pub(super) fn by_map(path: &Path, slots: &[Slot], modules: &[Module], map: &[(&str, &str)]) -> Result<Fit> {
    let mut fit = Fit::default();
    let mut levels = vec![0usize; modules.len()];
    let mut filled = vec![false; slots.len()];
    let mut used = vec![false; modules.len()];
    let problem = |problem: String| format_error(path, format!("{problem}; {}", suggestion(slots, modules)));
    for (prefix, layer) in map {
        let number = modules.iter().position(|module| module.prefix == *prefix);
        let Some((number, module)) = number.and_then(|number| Some((number, modules.get(number)?))) else {
            let known: Vec<&str> = modules.iter().map(|module| module.prefix.as_str()).collect();
            return Err(problem(format!("it has no module {prefix}, but {}", known.join(", "))));
        };
        let place = slots.iter().position(|slot| slot.layer == *layer);
        let Some((place, slot)) = place.and_then(|place| Some((place, slots.get(place)?))) else {
            let known: Vec<&str> = slots.iter().map(|slot| slot.layer.as_str()).collect();
            let expected = format!("one of the layers with weights, {}", known.join(", "));
            return Err(Error::option("map of PyTorch's names", expected, layer));
        };
        let (Some(level), Some(filled), Some(used)) =
            (levels.get_mut(number), filled.get_mut(place), used.get_mut(number))
        else {
            continue;
        };
        if *filled && module.is_batch_norm() && foldable(slot, module) {
            fit.folded.push(Folded { slot: place, module: number });
        } else if *filled {
            return Err(problem(format!("layer {layer} is named twice by the map")));
        } else if *used && slot.levels() == 0 {
            return Err(problem(format!("module {prefix} is named twice by the map")));
        } else {
            fit.assigned.extend(slot.fit(module, *level).map_err(&problem)?);
            *level += slot.levels();
            *filled = true;
        }
        *used = true;
        fit.map.push(((*prefix).to_owned(), (*layer).to_owned()));
    }
    check(path, slots, modules, &filled, &used, &levels)?;
    Ok(fit)
}

/// No map: layers in the order of the model, each with a module that has its shapes; one whose name is the layer's first, then by the
/// order of names.
pub(super) fn by_itself(path: &Path, slots: &[Slot], modules: &[Module]) -> Result<Fit> {
    let Found { fit, filled, used, levels, open } = found(slots, modules, &[]);
    check(path, slots, modules, &filled, &used, &levels)?;
    ask(path, &fit, &open)?;
    Ok(fit)
}

/// The same for layers whose weights are not there by the names of an ONNX file's constants. Those that are `settled` may stay as they are;
/// modules that are there `by_name` may be left over, and so may those that are `equal` to others.
pub(super) fn what_is_left(
    path: &Path,
    slots: &[Slot],
    modules: &[Module],
    settled: &[bool],
    by_name: &[bool],
    equal: impl Fn(&Fit, &Module) -> bool,
) -> Result<Fit> {
    let Found { fit, mut filled, mut used, levels, open } = found(slots, modules, by_name);
    let computed = slots.iter().zip(settled).zip(&filled).find(|((slot, s), f)| slot.is_constant() && !**s && !**f);
    if let Some(((slot, _), _)) = computed {
        let problem = format!(
            "the ONNX file has a constant, {}, that is none of the state_dict's tensors; the exporter may have computed it of them. Export the model \
             again from the module with these weights",
            slot.describe()
        );
        return Err(format_error(path, problem));
    }
    for (filled, settled) in filled.iter_mut().zip(settled) {
        *filled |= *settled;
    }
    for ((used, by_name), module) in used.iter_mut().zip(by_name).zip(modules) {
        *used |= *by_name || equal(&fit, module);
    }
    check(path, slots, modules, &filled, &used, &levels).map_err(|e| match e {
        Error::Format { path, format, problem } => {
            let hint = "of tensors that are equal an ONNX file may have one, so export it with trained weights";
            Error::Format { path, format, problem: format!("{problem}; {hint}") }
        }
        other => other,
    })?;
    ask(path, &fit, &open)?;
    Ok(fit)
}

/// Asks for a map where nothing but the alphabet tells modules apart.
fn ask(path: &Path, fit: &Fit, open: &[(String, Vec<String>)]) -> Result<()> {
    if let Some((layer, fitting)) = open.first() {
        let problem = format!(
            "layer {layer} may be any of the modules {}, which have the same shapes; say which by a map (in the program --map), such as {}",
            fitting.join(", "),
            pairs(&fit.map)
        );
        return Err(format_error(path, problem));
    }
    Ok(())
}

/// What belongs together by itself.
struct Found {
    fit: Fit,
    filled: Vec<bool>,
    used: Vec<bool>,
    levels: Vec<usize>,
    /// Layers for which nothing but the order of the alphabet chose among several modules, and those.
    open: Vec<(String, Vec<String>)>,
}

/// Whether names are the same but for their numbers, whose order is then that of the layers: `lstm1` and `lstm2`, `blocks.0.norm` and
/// `blocks.1.norm`.
fn are_numbered(names: &[&str]) -> bool {
    let plain = |name: &str| name.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let (mut plains, mut names) = (names.iter().map(|name| plain(name)), names.iter());
    let first = plains.next();
    let has_number = names.all(|name| name.contains(|c: char| c.is_ascii_digit()));
    has_number && plains.all(|other| Some(&other) == first.as_ref())
}

/// The numbers in a name, and what is around them: `blocks.10` comes after `blocks.9`.
fn in_order(name: &str) -> (Vec<u64>, &str) {
    let runs = name.split(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty());
    (runs.map(|run| run.parse().unwrap_or(u64::MAX)).collect(), name)
}

/// `taken` are modules all of whose tensors have their places; a normalization by moving averages may have others besides.
fn found(slots: &[Slot], modules: &[Module], taken: &[bool]) -> Found {
    let mut open = Vec::new();
    let mut levels = vec![0usize; modules.len()];
    let mut used = vec![false; modules.len()];
    let mut by_slot: Vec<Option<(usize, Vec<Assigned>)>> = slots.iter().map(|_| None).collect();
    // Names are the surest sign; then modules that are begun must be gone on with.
    for named in [Some(Named::Whole), Some(Named::Stem), None] {
        for (place, slot) in slots.iter().enumerate() {
            if by_slot.get(place).is_some_and(Option::is_some) {
                continue;
            }
            let candidates = modules.iter().enumerate().filter(|(number, module)| {
                let level = levels.get(*number).copied().unwrap_or(0);
                let free =
                    !used.get(*number).copied().unwrap_or(true) || (slot.levels() > 0 && level < module.levels());
                let may_be = slot.is_batch_norm() || taken.get(*number) != Some(&true);
                free && may_be && named.is_none_or(|how| speaks_of(how, &slot.layer, &module.prefix))
            });
            let mut fitting: Vec<(usize, Vec<Assigned>)> = candidates
                .filter_map(|(number, module)| {
                    let level = levels.get(number).copied().unwrap_or(0);
                    Some((number, slot.fit(module, level).ok()?))
                })
                .collect();
            // One that is begun before one that is not.
            let prefix = |number: usize| modules.get(number).map_or("", |module| &module.prefix);
            let is_begun = |number: usize| levels.get(number).copied().unwrap_or(0) > 0;
            fitting.sort_by_key(|(number, _)| (!is_begun(*number), in_order(prefix(*number))));
            let alike: Vec<&str> = match fitting.first() {
                Some((first, _)) => fitting
                    .iter()
                    .filter(|(number, _)| is_begun(*number) == is_begun(*first))
                    .map(|(number, _)| prefix(*number))
                    .collect(),
                None => continue,
            };
            if alike.len() > 1 && !are_numbered(&alike) {
                open.push((slot.layer.clone(), alike.iter().map(|name| (*name).to_owned()).collect()));
            }
            let Some((number, assigned)) = fitting.into_iter().next() else { continue };
            if let (Some(level), Some(used), Some(of_slot)) =
                (levels.get_mut(number), used.get_mut(number), by_slot.get_mut(place))
            {
                *level += slot.levels();
                *used = true;
                *of_slot = Some((number, assigned));
            }
        }
    }
    let mut fit = Fit::default();
    let filled: Vec<bool> = by_slot.iter().map(Option::is_some).collect();
    for (place, (slot, of_slot)) in slots.iter().zip(by_slot).enumerate() {
        let Some((number, assigned)) = of_slot else { continue };
        fit.assigned.extend(assigned);
        let prefix = |number: usize| modules.get(number).map(|module| module.prefix.clone()).unwrap_or_default();
        fit.map.push((prefix(number), slot.layer.clone()));
        // A normalization that the model has not, behind this layer.
        let norm = modules.iter().enumerate().find(|(number, module)| {
            !used.get(*number).copied().unwrap_or(true) && module.is_batch_norm() && foldable(slot, module)
        });
        if let Some((norm, _)) = norm {
            if let Some(used) = used.get_mut(norm) {
                *used = true;
            }
            fit.map.push((prefix(norm), slot.layer.clone()));
            fit.folded.push(Folded { slot: place, module: norm });
        }
    }
    Found { fit, filled, used, levels, open }
}

/// Whether a layer can take a normalization behind it into its weights.
fn foldable(slot: &Slot, module: &Module) -> bool {
    let Some(width) = super::normalized(slot) else { return false };
    module.tensors.iter().all(|(name, shape)| name == "num_batches_tracked" || shape.as_slice() == [width])
}

/// How a layer's name says which module it is.
#[derive(Clone, Copy)]
enum Named {
    /// By itself.
    Whole,
    /// Without the number that tells it from others of the same name: layers of one module.
    Stem,
}

/// Whether a layer's name says that it is this module: the same word, or the prefix among its parts.
fn speaks_of(how: Named, layer: &str, prefix: &str) -> bool {
    let stem = layer.rsplit_once('_').filter(|(_, number)| number.parse::<u32>().is_ok()).map(|(stem, _)| stem);
    let layer = match how {
        Named::Whole => layer,
        Named::Stem => stem.unwrap_or(layer),
    };
    let plain = prefix.replace('.', "_");
    let parts: Vec<&str> = layer.split(['/', '.', ':']).collect();
    let last = prefix.split('.').count();
    layer == prefix || layer == plain || parts.windows(last).any(|window| window.join(".") == prefix)
}

/// Refuses layers without weights from the file, and modules without a layer.
fn check(
    path: &Path,
    slots: &[Slot],
    modules: &[Module],
    filled: &[bool],
    used: &[bool],
    levels: &[usize],
) -> Result<()> {
    let empty: Vec<String> = slots
        .iter()
        .zip(filled)
        .filter(|(slot, filled)| !**filled && !slot.is_constant())
        .map(|(s, _)| s.describe())
        .collect();
    let left: Vec<String> = modules.iter().zip(used).filter(|(_, used)| !**used).map(|(m, _)| m.describe()).collect();
    let begun = modules.iter().zip(levels).find(|(module, level)| **level > 0 && **level < module.levels());
    let mut problems = Vec::new();
    if !empty.is_empty() {
        problems.push(format!("no module for the layers {}", empty.join(", ")));
    }
    if !left.is_empty() {
        problems.push(format!("no layer for the modules {}", left.join(", ")));
    }
    if let Some((module, level)) = begun {
        problems.push(format!("no layer for the layers from {level} on of module {}", module.prefix));
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(format_error(path, format!("{}; {}", problems.join("; "), suggestion(slots, modules))))
}

/// The map that would fit, as far as there is one.
fn suggestion(slots: &[Slot], modules: &[Module]) -> String {
    let Found { fit, .. } = found(slots, modules, &[]);
    if fit.map.is_empty() {
        return "no module has the shapes of any layer".to_owned();
    }
    format!("by their shapes, these belong together: {}", pairs(&fit.map))
}

fn pairs(map: &[(String, String)]) -> String {
    let pairs: Vec<String> = map.iter().map(|(prefix, layer)| format!("({prefix:?}, {layer:?})")).collect();
    format!("[{}]", pairs.join(", "))
}
