<?php
// What PHP's server and parsers take the path of a request for: the answer is a JSON list.
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
$found = [$_SERVER['SCRIPT_NAME'] . ($_SERVER['PATH_INFO'] ?? ''), $_SERVER['PHP_SELF'], strtok($_SERVER['REQUEST_URI'], '?')];
$found[] = rawurldecode(strtok($_SERVER['REQUEST_URI'], '?'));
if (is_string($path)) {
    array_push($found, $path, rawurldecode($path));
}
header('Content-Type: application/json');
echo json_encode($found, JSON_INVALID_UTF8_SUBSTITUTE);
