import pytest
from hypothesis import given
from hypothesis import strategies as st

from cngpt.corpus.clean import BASIC, Cleaner, Drop, build
from cngpt.corpus.document import Document


def clean(text, title="", min_chars=0):
    return Cleaner(build({**BASIC, "min_chars": min_chars}))(Document(text, title))


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        ("一\r\n二\r三\u2028四\x85五", "一\n二\n三\n四\n五"),
        ("头一段。\r\r第二段。", "头一段。\n第二段。"),  # as in baike2018qa
        ("　　段落一。\n　　段落二。　\n", "段落一。\n段落二。"),
        ("一\n\n \n\u3000\n二", "一\n二"),
        ("零\u200b宽\ufeff字\u00ad符\x00和\x07控制", "零宽字符和控制"),
        ("❤\ufe0f👨\u200d👩\u200d👧", "❤👨\u200d👩\u200d👧"),  # one emoji of three people
        ("می\u200cخواهم क्\u200dष", "می\u200cخواهم क्\u200dष"),  # letters of other scripts need their joiners
        ("中\u200d国\u200c人\u200d👩", "中国人👩"),
        ("半\ud800个", "半\ufffd个"),
        ("多   余\t的\u3000\u3000空\xa0格", "多 余 的 空 格"),
        ("他说 ， 好 。 （ 对 ） 《 书 》", "他说，好。（对）《书》"),
        ("He said “yes” to me, 然后 OK", "He said “yes” to me, 然后 OK"),
        (
            "战国无双（，）是，威尔特郡（，英文简称：）在，甲（，英语：A）和乙（注：丙）",
            "战国无双是，威尔特郡在，甲（英语：A）和乙（注：丙）",
        ),
        ("舜天（；）据，松鸦（学名：），谢尔（法语：）是，层（，（，））层", "舜天据，松鸦，谢尔是，层层"),
    ],
)
def test_white_space_and_invisible_characters_become_plain(dirty, expected):
    assert clean(dirty) == expected


@pytest.mark.parametrize(
    "text",
    [
        "下列说法正确的是（）。",
        "不属于（）？",
        "注意（说明：）",
        "调用函数()，得到",
        "曾炯()，字炯之。",
        "战国无双（）是",
        "用逗号（，）和顿号（、）分开",
        "成语（四个字：）",
    ],
)
def test_blanks_calls_and_signs_in_brackets_stay(text):
    assert clean(text) == text
    assert clean(text.replace("（）", "（　　）")) == text


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        ("<p>一</p><p>二<br/>三</p>", "一\n二\n三"),
        ('<a href="http://x.cn/?a=1">链接</a>和<STRONG>粗</STRONG>', "链接和粗"),
        ("前<script type='x'>if (a<b) {}</script>后<!-- 注 -->完", "前后完"),
        ("A&amp;B&nbsp;&lt;C&gt;&#20013;&#x6587;&hellip;", "A&B <C>中文…"),
        ("二次&amp;nbsp;转义&amp;quot;", '二次 转义"'),
        ("&lt;p&gt;段&lt;/p&gt;", "段"),
        ("标题\n&lt;div&gt;&lt;p&gt;一&amp;nbsp;二&lt;/p&gt;&lt;p&gt;三&lt;/p&gt;&lt;/div&gt;", "标题\n一 二\n三"),
        ("“&lt;p&gt;段落&lt;/p&gt;”是HTML里的写法", "“<p>段落</p>”是HTML里的写法"),
        ("&lt;p&gt;标签与&lt;br&gt;标签", "<p>标签与<br>标签"),
        ("<p>换行写作&lt;br/&gt;。</p>", "换行写作<br/>。"),
        ("<p>里 <p> 与 </p> 成对</p>", "里 <p> 与 </p> 成对"),
        ("是<ruby>承诺<rt>pledge</rt></ruby>，<ruby>漢<rp>(</rp><rt>han</rt><rp>)</rp></ruby>", "是承诺（pledge），漢（han）"),
        ("&notin;&region;&unknown;", "∉&region;&unknown;"),
    ],
)
def test_html_leftovers_go(dirty, expected):
    assert clean(dirty) == expected


@pytest.mark.parametrize(
    "text",
    [
        "若 a < b 且 c > d，则 a<b && b>c",
        "List<String> 与 <T>、<用户名>",
        "《红楼梦》〈序〉",
        "用 <p> 标签分段",
        "里 <p> 与 </p> 成对",
        "用<em>和</em>强调，也写 <B> 粗体 </B> 字",
        "选区 &region; 与 &notation;",
        "http://x.cn/?a=1&copy=2&reg=3",
        "AT&T; 和 R&D",
        "x << 2 >> 1 <- y",
    ],
)
def test_what_only_looks_like_html_stays(text):
    assert clean(text) == text


@pytest.mark.parametrize(
    ("title", "text", "expected"),
    [
        ("银杏", "银杏\n\n深秋时节。", "银杏\n深秋时节。"),  # as in wiki2019zh
        (" 银杏 ", "\n　　银杏\r\n深秋。", "银杏\n深秋。"),
        ("银杏", "银杏是一种树。", "银杏\n银杏是一种树。"),
        ("两行\n标题", "正文。", "两行 标题\n正文。"),
        ("", "正文。", "正文。"),
        ("银杏", "银杏", "银杏"),
    ],
)
def test_the_title_is_the_first_line_once(title, text, expected):
    assert clean(text, title) == expected


def test_short_documents_are_dropped_and_counted_with_an_example():
    cleaner = Cleaner(build({**BASIC, "min_chars": 5}))
    assert cleaner(Document("太短", id="a:1")) is None
    assert cleaner(Document("这就够长了", id="a:2")) == "这就够长了"
    assert cleaner.dropped.as_dict() == {"shorter than 5 characters": {"count": 1, "examples": ["a:1: 太短"]}}


def test_each_rule_that_changed_a_document_is_counted():
    seen = []
    cleaner = Cleaner(
        build({**BASIC, "min_chars": 3}), lambda rule, document, before, after: seen.append((rule, document.id, before, after))
    )
    cleaner(Document("<b>一</b>\r\n二", source="wiki", id="w:1"))
    cleaner(Document("三\r\n四", source="news", id="n:1"))
    cleaner(Document("五", source="news", id="n:2"))
    assert cleaner.done == {
        ("html", "wiki", "changed"): 1,
        ("html", "wiki", "characters"): len("<b></b>"),
        ("line_ends", "wiki", "changed"): 1,
        ("line_ends", "wiki", "characters"): 1,
        ("line_ends", "news", "changed"): 1,
        ("line_ends", "news", "characters"): 1,
        ("min_chars", "news", "dropped"): 1,
        ("min_chars", "news", "characters"): 1,
    }
    assert seen == [
        ("html", "w:1", "<b>一</b>\r\n二", "一\r\n二"),
        ("line_ends", "w:1", "一\r\n二", "一\n二"),
        ("line_ends", "n:1", "三\r\n四", "三\n四"),
    ]


def test_a_rule_of_ones_own_takes_its_place_in_the_list():
    def no_adverts(text):
        return Drop("advertisement") if "加微信" in text else text

    cleaner = Cleaner([*build({**BASIC, "min_chars": 0}), no_adverts])
    assert cleaner(Document("请加微信")) is None
    assert cleaner.dropped.counts == {"advertisement": 1}


text_like_ours = st.text(
    st.sampled_from("一二，。（）<p>/&;nbsp \u3000\r\n\t\u200b\u2028\ud800aB=\"'") | st.characters(), max_size=60
)


@given(text_like_ours)
def test_clean_text_is_valid_unicode_in_paragraphs_without_edges(text):
    result = clean(text) or "nothing was left"
    result.encode("utf-8")
    assert "\r" not in result and "\n\n" not in result and "\u3000" not in result
    assert all(line == line.strip(" ") and line for line in result.split("\n"))


def test_real_news_keeps_its_words(shared):
    import json

    for line in shared("corpora/dev/news2016zh_schema/news_xwlb_dev.jsonl").read_text(encoding="utf-8").splitlines()[:300]:
        record = json.loads(line)
        words = "".join((record["title"] + record["content"]).split())
        assert "".join(clean(record["content"], record["title"]).split()) in (words, words.removeprefix(record["title"]))
