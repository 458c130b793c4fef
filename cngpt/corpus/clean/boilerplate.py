"""What a site puts around its texts, and what somebody wants to sell."""

import re

from cngpt.corpus.clean.rules import Drop, RuleWithThresholds, Share, any_of
from cngpt.settings import Field

_SITE = "新浪|搜狐|网易|腾讯|凤凰网?|和讯|中华网"
_NAME = "[\u4e00-\u9fffA-Za-z·]"
# What links to a site's own pages left behind a name: 恒大(微博), 吴尊( 听歌 blog), 大成郡 (论坛 相册 户型), 宝钢(600019,股吧)
_PAGES = (
    "微博|博客|blog|听歌|音乐|论坛|相册|户型|样板间|点评|地图搜索|地图|搜索|图库|资料|数据|专题|视频|行情|股吧|爱股|专业点评|买卖点"
    "|财报|报价|参数|图片|文章|净值|基金吧|新闻|查询|阅读|评论|团购|动态|问答|专卖|官网|配置|经销商|店铺"
)
_ALONE = "微博|博客|blog|听歌|股吧|基金吧|行情|爱股"
_LINKS = re.compile(
    rf" ?[(（\[] ?(?:(?:{_ALONE})|[0-9A-Z.]{{4,9}}[,， ](?:(?:{_ALONE})[, ]?)+|(?:{_PAGES})(?:[ ,，|](?:{_PAGES}))+) ?[)）\]]",
    re.I,
)
_DATELINE = re.compile(
    rf"^(?:{_SITE})(?:[\u4e00-\u9fff]{{2,3}})?讯(?:[(（](?:编辑|实习编辑|记者|作者)[^()（）\n]{{0,20}}[)）][ \u3000，,：:]*|[ \u3000，,：:]+)",
    re.M,
)
_SIGNED = re.compile(
    rf"[(（\[](?:责任|实习|本文|本版|值班|见习)?(?:编辑|责编|编校|校对)[：: /]?{_NAME}[^()（）\n]{{0,15}}[)）\]]$"
    "|[(（](?:本报|实习|见习)?(?:记者|通讯员)[：:] ?[\u4e00-\u9fff· ]{2,12}[)）]$",
    re.M,
)
_BUTTON = re.compile(r"\[(?:点击|查看|进入)[^\[\]\n]{0,12}\]")  # [查看过关统计], at the end of a paragraph
_LINE = re.compile(
    "^(?:"
    + "|".join(
        [
            "(?:欢迎|我要|发表|查看|网友|更多|最新)*(?:发表)?评论(?: *我要评论)?",
            "(?:房产|汽车|财经|新闻|科技|网站)导航[：:]?",
            "(?:首页|返回顶部|返回首页|返回列表|加入收藏|设为首页|关闭窗口|打印本页|【?(?:打印|关闭|收藏)】?[ |]*)+",
            "(?:更多|查看|点击)[^。！？\n]{0,25}(?:[请敬]+(?:访问|关注|登[录陆]|浏览|点击|参见|查看|进入)|>>|＞＞|»)[^。\n]{0,80}",
            "(?:相关|推荐|延伸|热门|精彩|近期|猜你喜欢)(?:推荐|阅读|链接|新闻|专题|报道|文章|内容|搜索|评论|视频|导读)[：:>][^。\n]{0,120}",
            "[(（\\[【]?(?:责任编辑|实习编辑|本文编辑|责编|值班编辑|稿源|文章来源|稿件来源|信息来源)[：:】 ][^。\n]{0,40}",
            "[^。\n]{0,20}(?:发布时间|發布時間|发表时间|浏览次数|瀏覽次數|点击数|阅读次数|阅读量)[：:][^。\n]{0,60}",
            "(?:上|下)一?(?:篇|页|条|章|个|主题|篇文章|頁|條|個|主題|則|则)(?:文章|新闻|章节|产品)?[：: ]+[^。\n]{0,80}",
            "(?:Next|Previous|Prev)(?: post)?: [^\n]{0,80}",
            "本文标题[：:][^\n]{0,60}",
            "(?:标签|关键[词字]|分类|栏目|Tags?)[：:][^。\n]{0,60}[^。\n]?",
            "本(?:条目|文|帖)发布[于在][^\n]{0,100}",
            "\\d+ thoughts? on [^\n]{0,80}",
            "更多[^。！？，\n]{0,8}推荐[：:][^。\n]{0,160}",
            "\\[(?:参考价格|商家[名地]|联系[人方地电]|报价查询|经销商)[^\\]\n]{0,4}\\] ?[^\n]{0,80}",
            "[^。，\n]{0,8}下载(?:地址|链接)?[：:] ?(?:https?|www)[^\n]{0,80}",
            # by whom, without a sentence: ◆每经记者 唐宗全, 证券时报记者 李哲
            "[◆■⊙□●◎○]? ?(?:[\u4e00-\u9fff]{0,4}[报社网刊]|每经|首席|特约|实习|见习)*记者 [^。，！？：\n]{2,16}",
            "(?:文字|字[号体])[：: ]*[\\[【]?大[^。\n]{0,60}",
        ]
    )
    + ")$",
    re.M | re.I,
)
# Notices of rights, in short lines that say nothing else.
_NOTICE = re.compile(
    "^(?=[^\n]{0,160}$)(?:"
    "(?:特别|免责|版权|郑重|重要|本站|网站)?[声聲]?(?:声明|聲明|说明|提示|提醒)[：:].{0,80}(?:转载|轉載|版权|独家|不代表|為准|为准|仅供参考|僅供參考|不意味|不承担|授权)"
    "|.{0,60}(?:转载请(?:注明|保留|标明)|未经.{0,20}(?:转载|摘编|转贴)|版权所有(?![，的])|版權所有(?![，的])|不代表(?:本[站网刊平]|.{1,8}立场|.{1,12}观点)|仅代表作者)"
    "|.{0,30}(?:copyright|all rights reserved|©).{0,4}(?:20|19|by|@|©)"
    "|本文(?:来自|转载自|来源|系转载|由网友)|本(?:站|网站|網站)(?:所有|内容|部分|只提供|仅提供|资源|素材|的|在|对|將|将)"
    ").*$",
    re.M | re.I,
)
_SITES = tuple(_SITE.replace("凤凰网?", "凤凰").split("|"))
_LINKED = ("微博", "博客", "blog", "听歌", "股吧", "基金吧", "行情", "论坛", "爱股", "视频", "Blog", "BLOG")
_LONG = 160  # characters; what is longer is a paragraph of somebody's text


def boilerplate(text: str) -> str:
    """Lines that belong to the site go (评论, 更多…请访问, 责任编辑, 版权所有), as do its name before and its links within a text."""
    if ("(" in text or "（" in text or "[" in text) and any(map(text.__contains__, _LINKED)):
        text = _LINKS.sub("", text)
    if not _HINT.search(text):
        return text
    lines = text.split("\n")
    kept = [line for line in map(_without_site, lines) if line]
    return text if kept == lines else "\n".join(kept)


def _without_site(line: str) -> str:
    if line.startswith(_SITES):
        line = _DATELINE.sub("", line)
    if line[-1:] in _CLOSING:
        line = _SIGNED.sub("", line)
    if "[" in line:
        line = _BUTTON.sub("", line)
    return "" if len(line) <= _LONG and _HINT.search(line) and (_LINE.match(line) or _NOTICE.match(line)) else line


_CLOSING = frozenset(")）]")
# One of these words is in everything above.
_FURNITURE = (
    "评论 导航 首页 返回 收藏 关闭 打印 更多 查看 点击 相关 推荐 延伸 热门 精彩 近期 猜你 编辑 责编 编校 校对 稿源 来源 发布 發布 发表 浏览 瀏覽 阅读 上一 下一 上篇 下篇 上条 下条"
    " 上页 下页 上條 下條 上頁 下頁 上則 下則 Next Prev 本文 本条 本帖 标签 关键 分类 栏目 Tag thought 文字 字号 字体 字號 字體 声明 聲明 说明 提示 提醒 转载 轉載 版权 版權 不代表 代表作者"
    " opyright OPYRIGHT ights © 本站 本网 本網 记者： 记者: 通讯员： 通讯员: 下载： 下载: 下载地址 下载链接 [商家 [联系 [报价 [参考 [经销 [进入"
)
_HINT = re.compile(any_of([*_SITES, "记者 ", *_FURNITURE.split()]))


_CALL = "咨询|諮詢|热线|熱線|订购|订票|购买|联系|聯繫|预约|預約|报名|加盟|招商|批发|优惠|厂家|客服|洽谈|来电|致电|索取|详询|垂询|订阅|团购"
# In a line of at most 90 characters one of these is enough.
_STRONG = re.compile(
    "|".join(
        [
            "扫(?:描|一扫|码)?.{0,8}(?:二维码|小程序码|关注|下载)|[长识]按.{0,6}二维码|识别.{0,6}二维码",
            "(?:关注|搜索|添加|加).{0,12}(?:微信|公众号|公众平台|订阅号|客服号|微信号)",
            "微信(?:公众)?(?:号|平台|公众账号|订阅号)[：: “]",
            "(?:微信|QQ|加V|VX|扣扣|企鹅)(?:号|群|咨询|客服|热线)?[码号]?[：: ]{0,3}[A-Za-z0-9_-]{6,}",
            "点击(?:进入|查看|下载|此处|这里|购买|订阅|图片|阅读|了解|链接|关注|观看|报名|参与|浏览|右上|左下)(?!.{25})|点此(?:进入|查看|下载|购买)|阅读原文",
            "欢迎(?:您?的?来[电访]|咨询|选购|订购|洽谈|访问|光临|惠顾|致电|登录|登陆|关注|加入|转发|收藏|下载|投稿|来稿|您?来到|.{0,8}(?:致电|来电|选购|洽谈|咨询)|大家.{0,6}踏|各位.{0,6}投)",
            '(?:转发|分享)(?:到|至)?朋友圈|点个[“"]?(?:赞|在看|再看)|点赞.{0,3}关注|(?:一键|素质)三连|喜欢的(?:朋友|话|可以).{0,8}(?:点赞|关注|收藏|转发)',
            "编辑(?:手机)?短信.{0,20}发送到|下载(?:地址|链接)[：:]|提取(?:密)?码[：:]|解压密码",
            "(?:官方|唯一)(?:网站|网址|微博|微信|Q群|QQ群)[：:]|客服(?:电话|热线|QQ|微信)[：:]",
            f"(?:{_CALL}|电话|手机|TEL|传真).{{0,15}}(?:1[3-9]\\d{{9}}|0\\d{{2,3}}[-—－ ]?\\d{{7,8}}|[48]00[-—－ ]?\\d{{3,4}}[-—－ ]?\\d{{3,4}})",
            "期待与您(?:的)?合作|竭诚为您|真诚为您|[为為]您提供(?:咨询|服务|服務|.{0,12}(?:咨询|报价|一站式|解决方案))|高兴为您|为您服务|为您一对一|一对一为您",
            "(?:^|[，,。！!？?、 ])(?:立即|立刻|马上)(?:注册|抢购|购买|咨询|下载|订购|订制|定制|体验|加入|报名)",
            "(?:登录|登陆|注册)(?:后|才能|或|即可).{0,10}(?:查看|下载|阅读|登录|验证|继续|回复|可见)|如已(?:付费|购买)",
            "本(?:站|网站|論壇|论坛|网).{0,20}(?:会员|下载|转载|网友上传|整理|提供.{0,10}服务)|网上交易.{0,10}(?:风险|谨慎)",
            "主题已被删除|主題已被刪除|该(?:内容|文章|帖子|页面)已被?(?:删除|屏蔽)|暂无(?:数据|评论|内容|相关|记录)",
            "^.{0,50}希望(?:对|對)[您你大].{0,8}(?:帮助|幫助)|^以上就是.{2,40}(?:分享|介绍|全部内容|全部內容)",
            "如(?:果)?[您你]?(?:有|对).{0,12}(?:问题|疑问|侵权|异议|兴趣).{0,6}[联請请][系络聯]|如需.{0,12}请(?:购买|联系|登录|致电)|[与與咨联](?:询|系)?客服(?:确认|聯|联|咨询|预约)?",
            "(?:可|[请請]|[欢歡]迎).{0,8}(?:拨打|撥打).{0,15}(?:电话|電話|热线)|联系.{0,8}群主|想要?咨询|目前还?不支持此(?:服务|功能)|注明作者(?:为|為)|豆瓣：\\d|更新至\\d+集|回复了? ?\\S+ 创建的主题",
            "^您?好[ ，,].{0,40}官[网網](?:站)? ?[！!。]?$|^欢迎.{0,6}(?:来到|访问|光临|登[录陆]).{0,30}$",
        ]
    ),
    re.I,
)
# Wherever two of these stand in one line, however long it is, somebody sells.
_SELLING = (
    "厂家直销 厂家批发 批发价 价格优惠 诚信经营 现货供应 现货提供 大量现货 欢迎来电 欢迎咨询 欢迎选购 专业生产 专业供应 专业从事 专业销售 质优价廉 品质优良 哪家好 哪家便宜 价格怎么样 价格怎么樣"
    " 厂家电话 全国发货 量大从优 来图定制 生产定制 免费咨询 免费试听 免费设计 免费领取 免费送货 免费上门 秒杀 返现 礼物抽奖 包邮 续费同价 高防服务器 /月 代理加盟 招商加盟 县级代理 縣級代理 指紋鎖盟 多少錢"
    " 网站优化 SEO优化 实力厂家 生产定制经验 供货能力强 交期 产品销往 代理销售 代理銷售 專業供應 终身服务 終身服務 客户档案 客戶檔案 千万不要错过 千萬不要錯過 廣大讀者朋友 信息查询 信息查詢 信息发布 搬家電話"
    " 电话等相关信息 電話等相關信息 代理怎么样 县级代理 盟多少钱 广大读者朋友 免费安装 到货安装"
)
_AD_HINTS = (
    "扫描 扫码 扫一扫 二维码 公众号 公众平台 订阅号 公众账号 微信 QQ 加V VX 扣扣 点击 点此 阅读原文 欢迎 歡迎 朋友圈 点个 点赞 三连 短信 下载地址 下载链接 提取码 提取密码 解压密码 客服 官方网站 官方微"
    " 电话 電話 手机 热线 TEL 传真 咨询 諮詢 报名 期待与您 为您 為您 立即 立刻 马上 登录 登陆 注册 如已 本站 本网 网上交易 被删除 被刪除 被屏蔽 暂无 希望对 希望對 以上就是 联系我们 如有 如果有 如果您 如果你 如您 如需 拨打 撥打 群主 想咨询 想要咨询 不支持此 注明作者 豆瓣 更新至 创建的主题 您好"
)
_HINTS = re.compile(any_of([*_AD_HINTS.split(), *_SELLING.split()]))
_SALE = re.compile(any_of(_SELLING.split()))
_SHORT = 90  # characters
_TELLING = 600  # characters; what is longer tells something


class Advertisements(RuleWithThresholds, name="advertisements"):
    """Lines that sell, or ask to scan, click, call or follow, go; the document goes with them when they are more than `max` of it.

    A contact in a long paragraph stays: it is more often part of a story than an advertisement.
    """

    max: Share = Field(0.5, description="share of such lines above which the document goes")

    def __call__(self, text: str) -> str | Drop:
        if not _HINTS.search(text):
            return text
        lines = text.split("\n")
        kept = [line for line in lines if not is_advertisement(line)]
        if len(kept) == len(lines):
            return text
        if sum(map(len, kept)) < (1 - self.max) * len(text):
            return Drop("advertisement")
        return "\n".join(kept)


def is_advertisement(line: str) -> bool:
    if len(line) > _TELLING or not _HINTS.search(line):
        return False
    return (len(line) <= _SHORT and bool(_STRONG.search(line))) or len(set(_SALE.findall(line))) > 1
