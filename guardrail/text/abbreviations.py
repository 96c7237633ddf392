"""Abbreviations that end in a full stop, lower-cased, without that stop. English first, then common European ones."""

from __future__ import annotations


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


TITLES = _words(
    "mr mrs ms mx messrs dr drs prof st ste hon rev msgr sen rep gov pres supt det insp capt cmdr lt sgt cpl gen "
    "col maj e.g i.e eg ie cf viz vs v approx esp incl resp dept univ hrsg bzw z.b d.h u.a ggf evtl inkl zzgl "
    "mme mlle mm sr sra srta dott sig"
)
"""A name or the rest of the sentence follows: never the end."""

NUMBERED = _words("no nos nr p pp fig figs eq eqs sec secs ch chap vol vols art op ext tel ca c mt ft hwy rm apt nº §")
"""Go on when a digit follows ("No. 5"), and are ordinary words otherwise ("Certainly no. He left.")."""

MAYBE = _words(
    "etc al inc ltd co corp jr bros llc plc est a.m p.m am pm ph.d m.d b.a m.a b.sc m.sc d.c "
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri sat sun "
    "ave blvd rd in oz lb lbs hr hrs min mins sq usw"
)
"""May end a sentence: they do when a common first word follows with a capital."""

STARTERS = _words(
    "the a an he she it i we you they this that these those there here his her its my our your their but and or so if "
    "when while what who why how where which is are was do does did can will would should could no yes not now then in "
    "on at for from to as by with after before all some many most each every one i'm it's i've he's she's you're we're "
    "they're that's don't let please also however"
)
"""Words that begin sentences so often that a capital on them means a new sentence, not a name."""
