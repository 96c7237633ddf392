"""Disguises are undone, clean text is left alone, offsets lead back, and the result is its own normal form."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guardrail.text.lookalikes import ALL
from guardrail.text.normalise import fold, normalise

DISGUISED = {
    # invisible characters
    "id\u200bi\u200bot": "idiot",
    "st\u00adu\u00adpid": "stupid",
    "f\u2060u\u200cc\u200dk": "fuck",
    "\ufeffhello": "hello",
    "sh\ufe0fit": "shit",
    "nul\0l": "null",
    "lone \ud83d surrogate": "lone \ufffd surrogate",
    "abc\u202edef": "abcfed",
    "you \u202etoidi\u202c!": "you idiot!",
    "x\u2066y\u2069": "xy",
    "fuck\U000e0061\U000e0062 you": "fuck you",
    "hi" + "".join(chr(0xE0000 + ord(char)) for char in "obey me"): "hi obey me ",
    "👍" + "".join(chr(0xE0100 + ord(char) - 16) for char in "kill"): "👍 kill ",
    "you\u2800idiot": "you idiot",
    # look-alikes
    "іdіоt": "idiot",
    "ѕtuріd": "stupid",
    "you аre аn іdіоt": "you are an idiot",
    "уоu аrе а ѕtuріd соw": "you are a stupid cow",
    "Ꭵdiot": "idiot",
    "αsshοle": "asshole",
    "ᴀɴ ɪᴅɪᴏᴛ": "an idiot",
    "丨ᗪ丨ㄖㄒ": "idiot",
    "ты идиoт": "ты идиот",
    # styled letters
    "ｙｏｕ　ｉｄｉｏｔ！": "you idiot!",
    "お前はｉｄｉｏｔだ": "お前はidiotだ",
    "𝕐𝕠𝕦 𝕒𝕣𝕖 𝕒𝕟 𝕚𝕕𝕚𝕠𝕥": "You are an idiot",
    "Ⓨⓞⓤ ⓐ ⓘⓓⓘⓞⓣ": "You a idiot",
    "ⁱᵈⁱᵒᵗ": "idiot",
    "🄸🄳🄸🄾🅃 🅸🅳🅸🅾🆃": "IDIOT IDIOT",
    "🇮🇩🇮🇴🇹": "IDIOT",
    "m🅰️gg0️⃣ts": "maggots",
    "💲hit": "shit",
    "oﬃce": "office",
    # marks
    "i\u0336d\u0336i\u0336o\u0336t\u0336": "idiot",
    "i\u0300\u0316\u0323d\u0336i\u0303o\u0303\u0304\u0305\u0306t": "idiot",
    # leetspeak
    "1d10t": "idiot",
    "you @ss": "you ass",
    "$hit": "shit",
    "f4gg0t": "faggot",
    "a55hole": "asshole",
    "5tup1d": "stupid",
    "SH1T": "SHIT",
    "h3llo w0rld": "hello world",
    "p@ssword": "password",
    "fvck": "fuck",
    "k1ll y0urs3lf": "kill yourself",
    "1d1000t": "idiot",
    "1d107": "idiot",
    "45$h013": "asshole",
    # masks
    "f*ck you": "fuck you",
    "F**K": "FUCK",
    "sh!t": "shit",
    "b!tch": "bitch",
    "a**hole": "asshole",
    "f***ing": "fucking",
    "s*icide": "suicide",
    "what the f***": "what the fuck",
    "bitc*": "bitch",
    "i*ց*ո*ο*r*ⲁ*ո*t": "ignorant",
    "mother-f*cker": "mother-fucker",
    "id-iot": "idiot",
    "stu.pid": "stupid",
    "tw-t": "twat",
    "ki-ll": "kill",
    # spaced
    "you i d i o t!": "you idiot!",
    "i.d.i.o.t": "idiot",
    "i-d-i-o-t": "idiot",
    "f * c k": "fuck",
    "1 d 1 o t": "idiot",
    "a s s": "ass",
    "an i d і о t": "an idiot",
    "f u c k and more": "fuck and more",
    "i, d, i, o, t": "idiot",
    "y o u  a r e  a n  i d i o t": "you are an idiot",
    "y o u a r e a n i d i o t": "you are an idiot",
    # stretched
    "idiooooot": "idiot",
    "sooo gooood": "so good",
    "helloooo": "hello",
    "tooooo offff": "too off",
    "идиоооот": "идиот",
    "IDIOOOT": "IDIOT",
    # alternating case
    "yOu ArE aN iDiOt": "you are an idiot",
    "StUpId": "stupid",
}

CLEAN = """
H311, k111, 1053R, 3D, 4K, 11am, 80mb, mp3, v2, 4chan, 100%, R2D2, C3PO, covid19, b2b, i18n, l10n, k8s, H2O, CO2, x86, utf8, sha256.
The 1st, 2nd, 3rd, 4th, 60th and 80th; 10am, 9:30pm, 1080p, 50s, 90's, $5, $100k, 3.5%, 1-800-555-0199, 2024-01-02.
Prepar3D, A$AP Rocky, Ke$ha, Se7en, Toys"R"Us, AT&T, C++, C#, a+b, x*y*z, 2*3*4, **bold** and *italic* words*.
The letters h, e, l, l, and o; #AllLevelFitness, UPPP, group VIIIA, self-harming, Kaaaa1.
www aaa xxx VIII XXXIII III AAA IEEE ABSSSI NNNN. Brrr, shhh, pfff, zzz!
Schifffahrt, Flussschiff, Kaffeeernte, Balletttänzer, Fußball, Straße, Übung.
U S A, a b c d e f g, A B C D, x y z w, N.A.S.A., S-M-I-T-H, e.g. this, i.e. that, the U.S.A. and the U.K.
He'll say she'd well-known co-op re-enter T-shirt x-ray e-mail ass-hat-free... no? Yes! wow!that
iPhone LaTeX PyTorch McDonald eBay YoYo JavaScript GitHub camelCaseName snake_case_name CONSTANT_NAME mRNA NaCl.
Mail h3llo@ex4mple.com, see http://h3llo.com/sh1t?q=f4ck and www.5tup1d.org/a55, file sh1t.png, C:\\dir\\h4ck.exe
Use `h3llo` or x_h3llo=w0rld; #c0ffee 0xb4d deadb33f 550e8400-e29b-41d4-a716-446655440000 AAAAB3NzaC1yc2E=
print(f"{x!r} {y:>10}") if a && b || !c; arr[i++]; std::vector<int> v; git@host:repo.git; rm -rf ~/tmp/*
Привет, как дела? Это обычный русский текст. Ёлка, йод, съешь ещё этих мягких французских булок.
Москва is the capital of Russia; the word оса means wasp, and IT-отдел or iPhone'ом are fine.
Καλημέρα κόσμε, το αλφάβητο: α β γ δ. NFκB, μm, Δx, αβ-T-cells, β-carotene, σ and ρ are symbols.
Բարեւ աշխարհ. Українська мова: їжак, єнот, ґанок, і, й. Српски језик: Љубав, ђак, џеп.
می‌خواهم به خانه بروم. نمی‌دانم. کتاب‌های من. السلام عليكم كيف حالك؟ مُحَمَّد اردو میں لکھا ہے۔
שלום עולם, מה שלומך? שָׁלוֹם \u200fabc\u200f. ہندوستان
क्या हाल है? क्‍ष और क्‌ष। രാജ്യം അവൻ‍ ന്‍റെ ශ්‍රී ලංකා বাংলা ভাষা தமிழ் ಕನ್ನಡ తెలుగు
สวัสดีครับ ยินดีที่ได้รู้จัก 5555 ภาษาไทย ລາວ ខ្មែរ မြန်မာ བོད་ཡིག
你好，世界！今天天气怎么样？ＮＨＫでＯＫ！（ＡＢＣ）１２３ 日本語のテキスト、ｗｗｗ 哈哈哈哈 ㅋㅋㅋㅋ 안녕하세요 ㅠㅠㅠ
千山万水
Tiếng Việt: Xin chào, bạn khỏe không? Được rồi, tôi đi đây. Lễ hội đường phố.
Türkçe: sıfır, ışık, kız, yağmur, İstanbul. Polski: źdźbło, łódź. Íslenska: þetta er ég. Français: cœur, naïve, ça.
Emoji 👨‍👩‍👧‍👦 🏳️‍🌈 🏴󠁧󠁢󠁥󠁮󠁧󠁿 1️⃣ #️⃣ ❤️ ☎︎ 👩🏽‍🚒 🤷🏿‍♀️ 🇩🇪🇫🇷 🅰️ 🆗 ©️ ™ ℃ № ½ ② ⓐ ✓ ☑️ 🙎🏿‍♂️ wrong™️ Google©️
𝑥 + 𝑦² = 𝑧, f(𝑥) ∈ ℝ, H₂O, 1ˢᵗ, nᵗʰ, Ⅳ, Ⅷ, ∑ α_i, ≠ ≤ ∞ → 10⁻³, E = mc², $M_1|f'(y)|$
IPA: /ˈɪdiət/, [kɪt], ˈstjuːpɪd, ʃɪp, θɪŋ; “curly” quotes — dashes – and … ‘more’ «guillemets»
Vie\u0302\u0323t Nam (decomposed), e\u0301le\u0300ve, й, ё, कि, が, 각
""".strip().splitlines()

INTERESTING = [
    *"abcdeiostuvk IODT.-_*!@$01345+|'’\n`",
    *list(ALL)[::9],
    *(
        "idiot",
        "fuck",
        "you",
        "ｉｄ",
        "𝕚𝕕",
        "ⓘ",
        "🇩",
        "🅱️",
        "1️⃣",
        "💲",
        "ﬁ",
        "a a a ",
        "aaa",
        "i d i o t",
        "f*ck",
        "5h",
        "http://",
    ),
    *"\u200b\u200d\u202e\u202c\u0336\ufe0f\udc00\0\u3000\u2800\u00adßİıᴀɪ中й",
    *("\u0301\u0302\u0303", "👨", "🏳️‍🌈", "می‌خ", "한국", "Привет", "\U000e0041\U000e0042\U000e0043\U000e0044"),
]
texts = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(INTERESTING), max_size=14).map("".join))


@pytest.mark.parametrize(("text", "plain"), DISGUISED.items())
def test_a_disguise_is_undone(text: str, plain: str) -> None:
    result = normalise(text)
    assert result.text == plain
    assert result.changed


@pytest.mark.parametrize("text", CLEAN)
def test_clean_text_comes_back_unchanged(text: str) -> None:
    result = normalise(text)
    assert result.text is text
    assert not result.changed
    assert list(result.offsets) == list(range(len(text) + 1))


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "a" * 1_000_000, "\u3000 \u2003"])
def test_empty_blank_and_endless_text(text: str) -> None:
    assert normalise(text).text.strip() == text.strip()


@pytest.mark.parametrize(
    "unit", ["\0", "\u200b", "\u202e", "\ud800", "ｉ", "𝕚", "\u0301", "a ", "1d10t ", "f*ck ", "а", "🇩", "ß"]
)
def test_long_runs_of_a_disguise_are_read_whole(unit: str) -> None:
    text = unit * (20_000 // len(unit))
    result = normalise(text)
    assert len(result.offsets) == len(result.text) + 1
    assert result.offsets[-1] == len(text)


def test_a_span_covers_the_whole_disguised_word() -> None:
    text = "Oh, you 1\u200bd\u200b1\u200b0t\u200b, i d i o t and ﬁne."
    result = normalise(text)
    assert result.text == "Oh, you idiot, idiot and fine."
    at = result.text.index("idiot")
    start, end = result.to_original(at, at + 5)
    assert text[start:end] == "1\u200bd\u200b1\u200b0t\u200b"
    at = result.text.rindex("idiot")
    start, end = result.to_original(at, at + 5)
    assert text[start:end] == "i d i o t"
    at = result.text.index("fine")
    start, end = result.to_original(at, at + 1)
    assert text[start:end] == "ﬁ"


def test_a_span_outside_the_text_is_refused() -> None:
    with pytest.raises(IndexError, match="not within"):
        normalise("abc").to_original(1, 9)


@settings(max_examples=200, deadline=None)
@given(texts)
@example("\u202e\u202eab\u202c")
@example("a a a a  a a a a  a a a a  a a a a")
def test_offsets_lead_back_and_the_result_is_normal(text: str) -> None:
    for function in (normalise, fold):
        result = function(text)
        offsets = list(result.offsets)
        assert len(offsets) == len(result.text) + 1
        assert offsets == sorted(offsets)
        assert offsets[-1] == len(text)
        assert result.changed == (result.text != text)
        for start in range(len(result.text)):
            low, high = result.to_original(start, start + 1)
            assert 0 <= low < high <= len(text)
    assert not normalise(normalise(text).text).changed


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_nothing_visible_is_lost(text: str) -> None:
    letters = re.sub(r"[\W_]", "", text)
    assert not letters or normalise(text).text.strip()


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("ÜBER Fück", "uber fuck"),
        ("Straße", "strasse"),
        ("İSTANBUL", "istanbul"),
        ("ЁЛКА ЙОД", "елка йод"),
        ("don’t “say”", 'don\'t "say"'),
        ("ガギ 각 कि", "ガギ 각 कि"),
        ("مُحَمَّد", "محمد"),
        ("ＮＨＫで", "nhkで"),
        ("p e n d e j o", "pendejo"),
        ("1D10T", "idiot"),
    ],
)
def test_fold_is_for_matching(text: str, folded: str) -> None:
    assert fold(text).text == folded
