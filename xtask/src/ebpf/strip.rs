//! What is left of a linked object: everything that loading needs, and names.
//!
//! DWARF goes: the kernel and the loader read BTF only, and DWARF tells the
//! folders of the build. The relocations of BTF go too: what they would add is
//! what the loader finds by itself, and they take half of what is left.

use anyhow::{Context, Result};
use object::build::elf::{Builder, SectionData};

/// The same object without its debugging sections.
pub(super) fn strip(object: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(object).context("reading the object")?;
    for section in &mut elf.sections {
        let name = String::from_utf8_lossy(section.name.as_slice());
        section.delete = superfluous(&name);
    }
    elf.delete_orphans();

    // LLVM keeps the names of sections and symbols in one table, `object` in two.
    if !elf.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        let names = elf.sections.add();
        names.name = ".shstrtab".into();
        names.sh_type = object::elf::SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    let mut stripped = Vec::new();
    elf.write(&mut stripped).context("writing the object")?;
    Ok(stripped)
}

fn superfluous(section: &str) -> bool {
    let of = section.strip_prefix(".rel").unwrap_or(section);
    of.starts_with(".debug_") || (of != section && of.starts_with(".BTF"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_loader_reads_stays() {
        for kept in
            [".text", ".rel.text", "classifier", ".relclassifier", "maps", ".rodata", ".BTF", ".BTF.ext"]
        {
            assert!(!superfluous(kept), "{kept}");
        }
        for gone in [".debug_info", ".rel.debug_info", ".debug_str", ".rel.BTF", ".rel.BTF.ext"] {
            assert!(superfluous(gone), "{gone}");
        }
    }
}
