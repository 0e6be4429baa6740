-- HTML that is many times longer than what was written is not kept: it is shown as it was written, as it would be now.
update post_revision
set body_html = '<pre>' || replace(replace(replace(body, '&', '&amp;'), '<', '&lt;'), '>', '&gt;') || '</pre>'
where octet_length(body_html) > 12 * octet_length(body) + 4096;

update account
set about_html = '<pre>' || replace(replace(replace(about, '&', '&amp;'), '<', '&lt;'), '>', '&gt;') || '</pre>'
where octet_length(about_html) > 12 * octet_length(about) + 4096;
