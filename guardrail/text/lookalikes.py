"""Letters of other scripts that pass for Latin ones, and Latin ones that pass for Cyrillic.

`EXACT` look the same in common fonts (Unicode UTS 39, confusables); `LOOSE` only resemble a Latin letter, as in
generated "fancy" text, and are read as one only where that makes a known word.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["ALL", "EXACT", "LATIN", "LOOSE", "TO_CYRILLIC"]


def _pairs(listed: str) -> dict[str, str]:
    """`"aаα bЬ"`: in each group the letter and what looks like it."""
    return {char: group[0] for group in listed.split() for char in group[1:]}


# Cyrillic, Greek, Armenian, Cherokee, Lisu, Coptic, Deseret
EXACT: Mapping[str, str] = MappingProxyType(
    _pairs(
        "aаⲁ cсϲⲥ dԁ eеѐҽ gց hһհ iіꙇ jјϳյ lӏ nո oоοօⲟ𐐬 pрⲣ qԛզ sѕ𐑈 uս vѵⲵ wԝ xх yуү "
        "AАΑᎪꓮⲀ BВΒᏴꓐⲂ CСϹᏟꓚⲤ DᎠꓓ EЕΕᎬꓰⲈ FꓝϜ GԌᏀꓖ HНΗᎻꓧⲎ IІΙӀꓲⲒ JЈͿᎫꓙ KКΚᏦꓗⲔ LᏞꓡԼ MМΜᎷꓟⲘ NΝꓠⲚ OОΟՕꓳⲞ "
        "PРΡᏢꓑⲢ QԚ RᎡꓣ SЅՏᏚꓢ TТΤᎢꓔⲦ UՍꓴ VѴᏙꓦ WԜᎳꓪ XХΧꓫⲬ YҮΥᎩꓬⲨ ZΖᏃꓜ"
    )
)

# The same scripts, and syllabics, Thai, Hebrew, Bopomofo and Han as used by "fancy text" generators
LOOSE: Mapping[str, str] = MappingProxyType(
    _pairs(
        "aαдаɒค卂ᗩΔΛΆά bвьъβƄᏏᗷ乃๒Б cςςᑕ匚ϛ dժᏧᗪ๔ eєэεϵέеёЭЄΣΞ乇ꂅ fғϝᖴ千 gԍǥᎶგ hнћђᏂᕼ卄нһ "
        "iїίιϊιเᎥ丨 jʝڶﾌן kкκҡқҚᏦҜк lℓӀɭㄥᒪ mмм๓爪ᗰ nпηиήภ几ᑎИ oфσөθ๏ㄖΘФδό pρקᑭ卩 qգɊ "
        "rгяᏒгᖇ尺Яꓣ sѕรᔕ丂 tтτтՇㄒ† uμцυύยᑌㄩЦ vνѵשᐯ wшωщώฬᗯ山Ш xжхχאⅹ乂Ж yўγүץчㄚЧΨ zʐᏃᘔ乙з"
    )
)

# Latin letters that are not a-z but pass for one, small capitals of phonetic alphabets among them
LATIN: Mapping[str, str] = MappingProxyType(
    _pairs("aɑᴀ bʙ cᴄ dᴅɗ eᴇ fꜰƒ gɡɢ hʜɦ iıɪɨɩ jᴊȷ kᴋ lʟǀɫ mᴍɱ nɴ oᴏ pᴘ qǫꞯ rʀ sꜱʂ tᴛʈ uᴜ vᴠʋ wᴡ yʏ zᴢʐ")
)

ALL: Mapping[str, str] = MappingProxyType({**LOOSE, **LATIN, **EXACT})

# Only letters that are the same in both: a Russian word with a Latin letter in it is read as Russian.
TO_CYRILLIC: Mapping[str, str] = MappingProxyType(
    _pairs("аa еe оo рp сc уy хx іi АA ВB ЕE КK МM НH ОO РP СC ТT ХX УY ІI ѕs ԁd кk мm тt иu")
)
