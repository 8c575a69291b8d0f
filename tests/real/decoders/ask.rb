# Answers each line of JSON on stdin with one on stdout: what the decoder makes of it.
require "json"
require ARGV[0]

def raw(hex) = [hex].pack("H*")

$stdin.each_line do |line|
  ask = JSON.parse(line)
  a = ask["arguments"]
  answer =
    case ask["ask"]
    when "text" then text(raw(a[0]))
    when "items" then items(raw(a[0]))
    when "claims" then claims(raw(a[0]))
    when "assertion" then assertion(*a)
    when "signed" then signed?(a[0], raw(a[1]), a[2].transform_values { |hex| raw(hex) }, raw(a[3]), a[4])
    end
  puts JSON.generate({ "answer" => answer })
rescue StandardError => e
  puts JSON.generate({ "refused" => e.class.name })
ensure
  $stdout.flush
end
